"""From a Dockerfile to the steps of a template."""

from __future__ import annotations

import json
import posixpath
import re
import shlex

from grotte._proto.templates.builder import TemplateBuilder
from grotte._proto.templates.dockerfile_lines import Instruction, expanded, instructions, words
from grotte._proto.templates.ready import wait_for_timeout
from grotte.errors import DockerfileSyntaxError, InvalidArgumentException

#: What an image's own start command gets to become ready, in milliseconds.
START_TIME = 20_000
#: Who runs commands in sandboxes, and where, unless the Dockerfile says.
USER, WORKDIR = "user", "/home/user"
#: They describe an image and change nothing in it.
_WITHOUT_EFFECT = frozenset({"EXPOSE", "LABEL", "MAINTAINER"})
_ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.\w+)$")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|git@")


def read_dockerfile(text: str, builder: TemplateBuilder) -> str:
    """Add what a Dockerfile says to a template.

    Returns:
        The image that it starts from.

    Raises:
        DockerfileSyntaxError: it says something that is not understood, or nothing.
    """
    reader = _Reader(builder)
    for found in instructions(text):
        try:
            reader.take(found)
        except InvalidArgumentException as error:
            raise error if isinstance(error, DockerfileSyntaxError) else found.fail(str(error)) from None
    return reader.finish()


class _Reader:
    """Takes one instruction after the other."""

    def __init__(self, builder: TemplateBuilder) -> None:
        self._builder = builder
        self._image = ""
        self._outside: dict[str, str] = {}  # ARGs before FROM
        self._known: dict[str, str] = {}
        self._start: dict[str, str | list[str]] = {}
        self._has_user = self._has_workdir = False

    def take(self, found: Instruction) -> None:
        if found.name in _WITHOUT_EFFECT:
            return
        if not found.rest.strip():
            raise found.fail(f"{found.name} needs an argument")
        if not self._image and found.name not in ("FROM", "ARG"):
            raise found.fail(f"{found.name} stands before FROM")
        match found.name:
            case "FROM":
                self._from(found)
            case "ARG":
                self._arg(found)
            case "RUN":
                self._run(found)
            case "COPY" | "ADD":
                self._copy(found)
            case "ENV":
                self._env(found)
            case "WORKDIR":
                self._builder.set_workdir(words(found, found.rest, split=False)[0])
                self._has_workdir = True
            case "USER":
                self._builder.set_user(expanded(words(found, found.rest, split=False)[0], self._known))
                self._has_user = True
            case "CMD" | "ENTRYPOINT":
                self._start[found.name] = _json_words(found.rest) or found.rest.strip()
            case _:
                raise found.fail(f"{found.name[:50]} is not supported in templates")

    def finish(self) -> str:
        if not self._image:
            raise DockerfileSyntaxError("the Dockerfile has no FROM")
        if not self._has_user:
            self._builder.set_user(USER)
        if not self._has_workdir:
            self._builder.set_workdir(WORKDIR)
        command = _start_command(self._start.get("ENTRYPOINT"), self._start.get("CMD"))
        if command:
            self._builder.set_start_cmd(command, wait_for_timeout(START_TIME))
        return self._image

    def _from(self, found: Instruction) -> None:
        if self._image:
            raise found.fail("a second FROM: builds of several stages are not supported")
        image, *rest = [expanded(word, self._outside) for word in words(found, found.rest)]
        if image.startswith("--"):
            raise found.fail(f"FROM with {image.partition('=')[0]} is not supported")
        if rest and not (len(rest) == 2 and rest[0].upper() == "AS"):
            raise found.fail("FROM takes an image, and AS with a name")
        if not image or image == "scratch":
            raise found.fail("FROM needs the name of an image, and 'scratch' is none")
        self._image = image
        # Docker's own start, from which the rest counts
        self._builder.set_user("root").set_workdir("/")

    def _arg(self, found: Instruction) -> None:
        outside, envs = not self._image, {}
        for word in words(found, found.rest):
            name, given, value = word.partition("=")
            if not given and name in self._outside and not outside:
                given, value = "=", self._outside[name].replace("\\", "\\\\").replace("$", "\\$")
            if outside:
                self._outside[name] = expanded(value, self._outside)
            elif given:
                envs[name] = value
        self._set(envs)

    def _env(self, found: Instruction) -> None:
        pairs = words(found, found.rest)
        if "=" not in pairs[0]:
            name, *rest = found.rest.split(None, 1)
            if not rest:
                raise found.fail(f"ENV {name[:100]} has no value")
            self._set({name: words(found, rest[0], split=False)[0]})
            return
        if not all(word.partition("=")[1] for word in pairs):
            raise found.fail("ENV takes NAME=VALUE pairs; a value with spaces is quoted")
        self._set({name: value for name, _, value in (word.partition("=") for word in pairs)})

    def _set(self, envs: dict[str, str]) -> None:
        self._builder.set_envs(envs)
        self._known |= {name: expanded(value, self._known) for name, value in envs.items()}

    def _run(self, found: Instruction) -> None:
        if found.rest.startswith("--"):
            raise found.fail(f"RUN with {re.split('[= ]', found.rest)[0]} is not supported")
        if not found.heredocs:
            listed = _json_words(found.rest)
            self._builder.run_cmd(shlex.join(listed) if listed else found.rest.strip())
        elif re.fullmatch(r"\d*<<\S+", found.rest.strip()):
            body = found.heredocs[0].body
            if body.startswith("#!"):
                raise found.fail("a heredoc of another interpreter names it: RUN python3 <<EOF")
            self._builder.run_cmd(body)
        else:  # shells know heredocs, too
            self._builder.run_cmd("\n".join([found.rest, *(heredoc.raw for heredoc in found.heredocs)]) + "\n")

    def _copy(self, found: Instruction) -> None:
        if found.heredocs:
            raise found.fail(f"{found.name} of a heredoc is not supported: use RUN cat > FILE <<EOF")
        flags, rest = _flags(found)
        listed = _json_words(rest) or words(found, rest)
        if len(listed) < 2:
            raise found.fail(f"{found.name} needs a source and a destination")
        *sources, target = listed
        if len(sources) > 1 and not target.endswith("/"):
            raise found.fail("several sources need a directory as destination, which ends with a slash")
        self._builder.copy(
            [self._source(found, expanded(source, self._known)) for source in sources],
            target,
            user=expanded(flags["chown"], self._known) if "chown" in flags else None,
            mode=_mode(found, flags["chmod"]) if "chmod" in flags else None,
        )

    def _source(self, found: Instruction, source: str) -> str:
        if found.name == "ADD" and _REMOTE.match(source):
            raise found.fail("ADD of a URL or a repository is not supported: use RUN with curl or git")
        if found.name == "ADD" and _ARCHIVE.search(source):
            raise found.fail("ADD of an archive is not supported: use COPY, and RUN tar -xf")
        return posixpath.normpath(source.lstrip("/") or ".")


def _flags(found: Instruction) -> tuple[dict[str, str], str]:
    """The options of COPY, and what follows them."""
    flags, rest = {}, found.rest.strip()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, _, value = flag[2:].partition("=")
        if name not in ("chown", "chmod", "link"):
            raise found.fail(f"{found.name} with --{name} is not supported")
        flags[name], rest = value, rest.lstrip()
    return flags, rest


def _mode(found: Instruction, text: str) -> int:
    if not re.fullmatch("[0-7]{3,4}", text):
        raise found.fail(f"--chmod takes permissions in octal digits, not {text!r}")
    return int(text, 8)


def _json_words(text: str) -> list[str] | None:
    """The words of the form ``["a", "b"]``; None if it is not that."""
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        return None
    return found if isinstance(found, list) and found and all(isinstance(word, str) for word in found) else None


def _start_command(entrypoint: str | list[str] | None, cmd: str | list[str] | None) -> str:
    """What Docker would run: a list as ENTRYPOINT has CMD as its arguments."""
    if isinstance(entrypoint, list):
        more = cmd if isinstance(cmd, list) else ["/bin/sh", "-c", cmd] if cmd else []
        return shlex.join([*entrypoint, *more])
    found = entrypoint or cmd or ""
    return shlex.join(found) if isinstance(found, list) else found
