"""One build, from its first layer to the moment when sandboxes can start from it."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import deque
from dataclasses import replace
from functools import partial

import anyio
import msgspec

from grotte.engine.builds.catalogue import BuildRow, Catalogue, Reason
from grotte.engine.builds.contexts import MAX_UNPACKED, Contexts
from grotte.engine.builds.logs import LogWriter
from grotte.engine.builds.request import BuildRequest
from grotte.engine.builds.steps import Copy, Env, Run, Step, User, Workdir, expand
from grotte.engine.builds.workshop import Stage, StepFailed, Work, Workshop
from grotte.engine.faults import ControlFault
from grotte.engine.host import PATH, Guest, HostError
from grotte.engine.images.puller import Image, Puller
from grotte.engine.images.reference import ImageError
from grotte.engine.lifecycle.setup import Setup
from grotte.engine.lifecycle.starting import start, start_of
from grotte.engine.lifecycle.templates import Templates
from grotte.engine.processes.table import ProcessTable

BASE, FINALIZE = "base", "finalize"
#: A template that is ready to be built from, where Debian's packages can be had.
DEBIAN = "debian"
#: How much of a failed step's output, in lines, and of its text, in characters, its error says.
LAST_LINES, MAX_TEXT = 10, 200


class BuildFailed(Exception):
    """A build has failed, in a step."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class Builder:
    """Builds one template at a time; any number of builders may be at work.

    Args:
        templates: What others have built, and what there is besides.
        workshop: Where steps are done.
        puller: Where images come from.
        contexts: What COPY copies.
    """

    def __init__(self, templates: Templates, workshop: Workshop, puller: Puller, contexts: Contexts) -> None:
        self._templates = templates
        self._catalogue: Catalogue = templates.catalogue
        self._workshop = workshop
        self._puller = puller
        self._contexts = contexts

    async def build(self, row: BuildRow, owner: str, request: BuildRequest, log: LogWriter) -> None:
        """Do all steps, or take them from the cache.

        Raises:
            BuildFailed: one failed.
        """
        job = _Job(row, owner, log)
        try:
            stage = await self._begin(job, request)
            fresh = request.force
            for number, step in enumerate(request.steps, 1):
                job.begin(str(number), step.text)
                fresh = fresh or step.force
                stage = await self._do(job, stage, step, f"[{number}/{len(request.steps)}]", fresh=fresh)
                self._note(job, stage)
            job.begin(FINALIZE, "the start command")
            await self._finish(job, stage, request)
        except (StepFailed, ImageError, ControlFault) as error:
            raise BuildFailed(Reason(job.explain(str(error)), job.step)) from None

    def _note(self, job: _Job, stage: Stage) -> None:
        self._catalogue.set_progress(job.row.id, list(stage.layers), stage.setup)

    # -- where it starts -------------------------------------------------------------------------------------------

    async def _begin(self, job: _Job, request: BuildRequest) -> Stage:
        sizes = job.row.setup
        if request.template and self._is_debian(job, request.template):
            stage = await self._from_debian(job, request)
        elif request.template:
            found = self._templates.find(request.template, job.owner)
            setup = found.setup
            stage = Stage(tuple(layer.name for layer in found.layers), setup)
            job.log.write(f"FROM template {found.alias}")
        elif request.image:
            stage = await self._from_image(job, request)
        else:
            stage = Stage((), Setup())
            job.log.write("FROM base")
        setup = msgspec.structs.replace(stage.setup, cpus=sizes.cpus, memory_mb=sizes.memory_mb)
        stage = replace(stage, setup=setup)
        self._note(job, stage)
        return stage

    async def _from_image(self, job: _Job, request: BuildRequest) -> Stage:
        job.log.write(f"FROM {request.image}")
        image = await self._puller.pull(
            request.image, job.owner, request.credentials, job.say, partial(self._hold, job)
        )
        return await self._prepared(job, image)

    def _is_debian(self, job: _Job, reference: str) -> bool:
        """Whether a template is the ready-made one, and not one that somebody built under its name."""
        if reference != DEBIAN:
            return False
        try:
            self._templates.find(reference, job.owner)
        except ControlFault:
            return True
        # Who builds it anew means what there is without it.
        return self._templates.find(reference, job.owner).template_id == job.row.template

    async def _from_debian(self, job: _Job, request: BuildRequest) -> Stage:
        job.log.write("FROM template debian")
        image = await self._puller.make_debian(job.say, partial(self._hold, job), fresh=request.force)
        return await self._prepared(job, image)

    def _hold(self, job: _Job, layers: list[str]) -> None:
        self._catalogue.set_progress(job.row.id, layers, job.row.setup)

    async def _prepared(self, job: _Job, image: Image) -> Stage:
        """An image in which steps can run."""
        stage = Stage(tuple(image.layers), Setup(on_host_usr=False, envs=image.envs))

        async def prepare(guest: Guest) -> None:
            await self._workshop.tool(guest, "provision", "image")

        return await self._cached(job, stage, "preparing the image", prepare, fresh=False)

    # -- steps -----------------------------------------------------------------------------------------------------

    async def _do(self, job: _Job, stage: Stage, step: Step, place: str, *, fresh: bool) -> Stage:
        setup = stage.setup
        match step.action:
            case Env(values):
                job.log.write(f"{place} {step.text}", step=job.step)
                envs = dict(setup.envs)
                for name, value in values:
                    envs[name] = expand(value, _known(setup))
                return replace(stage, setup=msgspec.structs.replace(setup, envs=envs))
            case Run(command, user):
                work = partial(self._run, job, setup, command, user)
            case Copy() as copy:
                work = partial(self._copy, job, setup, copy)
            case Workdir(path):
                path = posixpath.normpath(posixpath.join(_workdir(setup), expand(path, _known(setup))))
                setup = msgspec.structs.replace(setup, workdir=path)
                work = partial(self._use, "workdir", path, setup.user)
            case User(name, administrator):
                setup = msgspec.structs.replace(setup, user=name)
                work = partial(self._use, "user", name, "yes" if administrator else "no")
        key = msgspec.json.encode(step.action, enc_hook=str).decode()
        done = await self._cached(job, stage, f"{place} {step.text}", work, fresh=fresh, key=key)
        return replace(done, setup=setup)

    async def _cached(self, job: _Job, stage: Stage, text: str, work: Work, *, fresh: bool, key: str = "") -> Stage:
        """Do something on a stage, unless it was done there before."""
        what = [job.owner, stage.layers, _relevant(stage.setup), key or text]
        digest = hashlib.sha256(msgspec.json.encode(what)).hexdigest()
        known = None if fresh else self._catalogue.layer(digest)
        if known is not None:
            job.log.write(f"CACHED {text}", step=job.step)
            return stage.on(known)
        job.log.write(text, step=job.step)
        layer = await self._workshop.make_layer(stage, work)
        self._catalogue.add_layer(digest, layer)
        stage = stage.on(layer)
        self._note(job, stage)
        return stage

    async def _run(self, job: _Job, setup: Setup, command: str, user: str, guest: Guest) -> None:
        await self._workshop.run(guest, setup, command, user, job.line)

    async def _use(self, what: str, name: str, more: str, guest: Guest) -> None:
        await self._workshop.tool(guest, "provision", what, name, more)

    async def _copy(self, job: _Job, setup: Setup, copy: Copy, guest: Guest) -> None:
        target = posixpath.join(_workdir(setup), expand(copy.target, _known(setup)))
        told = {
            "source": copy.source,
            "target": target + "/" if copy.target.rstrip("/").endswith(("/.", "/..")) or copy.target == "." else target,
            "owner": copy.owner or setup.user,
            "mode": copy.mode,
            "limit": MAX_UNPACKED,
        }
        context = self._contexts.open(job.owner, copy.context)
        try:
            await self._workshop.tool(guest, "copying", msgspec.json.encode(told).decode(), stdin=context)
        finally:
            os.close(context)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _finish(self, job: _Job, stage: Stage, request: BuildRequest) -> None:
        """Start what every sandbox will start, and keep what that writes until it is ready."""
        setup = stage.setup
        start_cmd = setup.start_cmd if request.start_cmd is None else request.start_cmd
        ready_cmd = setup.ready_cmd if request.ready_cmd is None else request.ready_cmd
        if start_cmd or request.ready_cmd:
            wanted = msgspec.structs.replace(setup, start_cmd=start_cmd or ":", ready_cmd=ready_cmd)
            text = f"start: {start_cmd or '(nothing)'}; ready: {ready_cmd or '(at once)'}"
            stage = await self._cached(job, stage, text, partial(self._start, job, wanted), fresh=request.force)
        # Without a start command, sandboxes have nothing to wait for.
        kept = msgspec.structs.replace(setup, start_cmd=start_cmd, ready_cmd=ready_cmd if start_cmd else "")
        self._note(job, replace(stage, setup=kept))

    async def _start(self, job: _Job, setup: Setup, guest: Guest) -> None:
        wanted = start_of(setup, job.row.template)
        assert wanted is not None
        failure: HostError | None = None
        async with anyio.create_task_group() as tasks:
            table = ProcessTable(guest, tasks)
            try:
                await start(guest, table, wanted, job.line)
            except HostError as error:
                failure = error  # out of the task group, which would wrap it
            finally:
                for process in table.running():
                    with anyio.CancelScope(shield=True):  # the link answers, or is closed
                        await guest.kill_tree(process.pid)
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


class _Job:
    """What belongs to one build alone.

    Attributes:
        step: What is being done.
    """

    def __init__(self, row: BuildRow, owner: str, log: LogWriter) -> None:
        self.row = row
        self.owner = owner
        self.log = log
        self.begin(BASE, "")

    def begin(self, step: str, text: str) -> None:
        """The next step."""
        self.step = step
        self._text = text
        self._said: deque[str] = deque(maxlen=LAST_LINES)

    def say(self, text: str) -> None:
        """Something is being fetched."""
        self.log.write(text, "debug", self.step)

    def line(self, text: str, is_error: bool) -> None:
        """A command said something."""
        self._said.append(text)
        self.log.write(text, "warn" if is_error else "info", self.step)

    def explain(self, problem: str) -> str:
        """What went wrong, where, and what was said before."""
        if self._text:
            text = self._text if len(self._text) <= MAX_TEXT else f"{self._text[:MAX_TEXT]}…"
            place = f"step {self.step}, {text}" if self.step.isdecimal() else text
            problem = f"{place}: {problem}"
        return "\n".join([problem, *self._said])


def _known(setup: Setup) -> dict[str, str]:
    """The variables that a step can name."""
    return {"PATH": PATH, "HOME": _home(setup.user)} | setup.envs


def _workdir(setup: Setup) -> str:
    """Where relative paths of a step start."""
    return setup.workdir or _home(setup.user)


def _home(user: str) -> str:
    return "/root" if user == "root" else f"/home/{user}"


def _relevant(setup: Setup) -> list[object]:
    """What of a setup the outcome of a step depends on."""
    return [setup.on_host_usr, setup.user, setup.workdir, setup.envs]
