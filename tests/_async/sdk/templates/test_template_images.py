"""Templates from images of a registry: built, kept, and started, with glibc and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from grotte import AsyncSandbox, AsyncTemplate, BuildException, LogEntry, TemplateBuilder
from tests.support.engine import Engine
from tests.support.images import HTPASSWD, SECRET, Layer, Layout, Registry, running_registry

#: Another answer whenever it is asked.
STAMP = "cat /proc/sys/kernel/random/uuid"


async def log_of(engine: Engine, template: TemplateBuilder, name: str) -> list[str]:
    """Build a template; what its steps said."""
    entries: list[LogEntry] = []
    await AsyncTemplate.build(template, name, on_build_logs=entries.append, **engine.options)
    return [entry.message for entry in entries]


async def built_once(engine: Engine, template: TemplateBuilder, name: str, look: str) -> str:
    """Build a template twice, and look into a sandbox after each: the second time nothing is done again."""
    seen: list[str] = []
    for cached in (False, True):
        log = await log_of(engine, template, name)
        steps = [line for line in log if "] RUN" in line]
        assert steps
        assert [line.startswith("CACHED") for line in steps] == [cached] * len(steps)
        assert ("said at the end" in log) is not cached
        async with await AsyncSandbox.create(name, **engine.options) as sandbox:
            seen.append((await sandbox.commands.run(look)).stdout)
    assert seen[0] == seen[1]
    return seen[0]


async def test_the_first_example_on_debian(engine: Engine, name: str, debian_image: str) -> None:
    template = (
        AsyncTemplate()
        .from_image(debian_image)
        .run_cmd(f"apt-get update && apt-get install -y tiny && : {name}")
        .run_cmd(f"tiny > ~/said && {STAMP} > ~/stamp && echo said at the end")
        .set_workdir("/opt/work")
    )
    look = "pwd; id -un; echo $FROM_IMAGE; cat ~/said /etc/debian_version; dpkg -s tiny | grep Status; cat ~/stamp"
    shown = (await built_once(engine, template, name, look)).splitlines()
    assert shown[:4] == ["/opt/work", "user", "yes", "tiny"]
    assert shown[5] == "Status: install ok installed"


async def test_the_same_without_glibc(engine: Engine, name: str, registry: Registry, musl: Layer) -> None:
    image = registry.push("small:1", musl, envs=["FROM_IMAGE=yes", "PATH=/bin"])
    template = (
        AsyncTemplate()
        .from_image(image)
        .set_envs({"NAME": name})
        .run_cmd(["hello > /etc/said", "id -un >> /etc/said"], user="root")
        .run_cmd(f"{STAMP} > ~/stamp && echo said at the end")
        .set_workdir("/opt/work")
    )
    look = "pwd; id -un; echo $FROM_IMAGE $NAME; cat /etc/said ~/stamp"
    shown = (await built_once(engine, template, name, look)).splitlines()
    assert shown[:5] == ["/opt/work", "user", f"yes {name}", "hello from musl", "root"]


async def test_images_that_are_not_for_everybody(engine: Engine, name: str, musl: Layer, tmp_path: Path) -> None:
    with running_registry(tmp_path / "room", HTPASSWD) as private:
        layout = Layout(tmp_path / "layout")
        layout.index([layout.image([musl])])
        image = private.push_layout("private:1", layout, f"--dest-creds=user:{SECRET}")
        for template in (AsyncTemplate().from_image(image), AsyncTemplate().from_image(image, "user", "wrong-one")):
            with pytest.raises(BuildException, match=r"(?i)authenti") as raised:
                await AsyncTemplate.build(template, name, **engine.options)
            assert (raised.value.step, "wrong-one" in str(raised.value)) == ("base", False)
        template = AsyncTemplate().from_image(image, username="user", password=SECRET).run_cmd("hello")
        log = await log_of(engine, template, name)
    assert "hello from musl" in log
    assert SECRET not in "".join(log)
