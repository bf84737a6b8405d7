"""Templates, built by the real engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grotte import (
    AsyncSandbox,
    AsyncTemplate,
    BuildException,
    BuildInfo,
    InvalidArgumentException,
    LogEntry,
    LogEntryEnd,
    LogEntryStart,
    TemplateBuildStatus,
    TemplateException,
    wait_for_file,
)
from tests.support.engine import Engine

MANY = 250


async def output_of(engine: Engine, template: str, command: str) -> str:
    async with await AsyncSandbox.create(template, **engine.options) as sandbox:
        return (await sandbox.commands.run(command)).stdout


async def test_from_the_builder_to_a_sandbox(engine: Engine, name: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "run.sh").write_text(f"echo hello # {name}")
    (app / "run.sh").chmod(0o750)
    (app / "link").symlink_to("run.sh")
    (app / "notes.tmp").write_text("not this")
    (tmp_path / ".dockerignore").write_text("# a comment\n**/*.tmp\n")
    template = (
        AsyncTemplate(tmp_path)
        .from_base_image()
        .set_envs({"STAGE": "test it"})
        .set_envs({"MORE": "$STAGE!"})
        .copy("app", "/opt/app/", user="user")
        .make_dir("/opt/a b", mode=0o700, user="root")
        .make_symlink("/opt/app/run.sh", "/opt/it's", user="root")
        .set_workdir("/opt/app")
        .run_cmd(["echo one", "echo two >&2"])
    )
    entries: list[LogEntry] = []
    info = await AsyncTemplate.build(template, name, on_build_logs=entries.append, **engine.options)
    assert isinstance(info, BuildInfo)
    assert (info.name, info.tags) == (name, ["default"])
    assert isinstance(entries[0], LogEntryStart)
    assert isinstance(entries[-1], LogEntryEnd)
    said = {(entry.level, entry.message) for entry in entries}
    assert {("info", "one"), ("warn", "two"), ("info", "Uploaded 'app'")} <= said
    assert await AsyncTemplate.exists(name, **engine.options)
    looked = await output_of(
        engine, name, 'pwd; ls -A; stat -c %a run.sh "/opt/a b"; readlink link; sh "/opt/it\'s"; echo $STAGE $MORE'
    )
    assert looked == "/opt/app\nlink\nrun.sh\n750\n700\nrun.sh\nhello\ntest it test it!\n"

    # again: nothing is sent, nothing is done
    entries.clear()
    again = await AsyncTemplate.build(template, alias=name, on_build_logs=entries.append, **engine.options)
    assert (again.template_id, again.build_id != info.build_id) == (info.template_id, True)
    messages = [entry.message for entry in entries]
    assert "Skipping upload of 'app', already cached" in messages
    steps = [message for message in messages if "/7] " in message]
    assert len(steps) == 7
    assert not [message for message in steps if "RUN" in message and "CACHED" not in message]


async def test_a_build_that_fails_says_which_step_and_why(engine: Engine, name: str) -> None:
    template = AsyncTemplate().from_base_image().run_cmd("true").run_cmd("echo before; echo 'went wrong' >&2; exit 3")
    with pytest.raises(BuildException, match=r"(?s)step 2.*exit 3.*went wrong") as raised:
        await AsyncTemplate.build(template, name, **engine.options)
    assert raised.value.step == "2"


async def test_no_line_of_a_long_log_is_lost(engine: Engine, name: str) -> None:
    lines: list[str] = []

    def note(entry: LogEntry) -> None:
        lines.append(entry.message)

    template = AsyncTemplate().from_base_image().run_cmd(f"seq -f 'line %g' {MANY}")
    await AsyncTemplate.build(template, name, on_build_logs=note, **engine.options)
    assert [line for line in lines if line.startswith("line ")] == [f"line {number + 1}" for number in range(MANY)]


async def test_a_build_in_the_background(engine: Engine, name: str) -> None:
    template = AsyncTemplate().from_template("base").run_cmd("echo done")
    info = await AsyncTemplate.build_in_background(template, f"{name}:v1", tags=["v2"], **engine.options)
    assert info.tags == ["v1", "v2"]
    offset, messages = 0, []
    while True:
        status = await AsyncTemplate.get_build_status(info, offset, **engine.options)
        offset += len(status.log_entries)
        messages += [entry.message for entry in status.log_entries]
        if status.status == TemplateBuildStatus.READY and not status.log_entries:
            break
        assert status.status in ("waiting", "building", "ready")
    assert "done" in messages
    assert (status.template_id, status.build_id, status.reason) == (info.template_id, info.build_id, None)


async def test_tags(engine: Engine, name: str) -> None:
    info = await AsyncTemplate.build(AsyncTemplate().from_base_image(), f"{name}:v1", **engine.options)
    given = await AsyncTemplate.assign_tags(f"{name}:v1", ["stable", "v1.0"], **engine.options)
    assert (given.build_id, sorted(given.tags)) == (info.build_id, ["stable", "v1.0"])
    await AsyncTemplate.remove_tags(name, "stable", **engine.options)
    tags = await AsyncTemplate.get_tags(name, **engine.options)
    assert {(tag.tag, tag.build_id) for tag in tags} == {("v1", info.build_id), ("v1.0", info.build_id)}
    assert all(tag.created_at.tzinfo for tag in tags)
    with pytest.raises(TemplateException):
        await AsyncTemplate.assign_tags(f"{name}:nothing", "x", **engine.options)


async def test_a_template_is_listed_until_it_is_deleted(engine: Engine, name: str) -> None:
    template = AsyncTemplate().from_base_image()
    info = await AsyncTemplate.build(template, name, cpu_count=1, memory_mb=512, **engine.options)
    (listed,) = [found for found in await AsyncTemplate.list(**engine.options) if found.template_id == info.template_id]
    assert (listed.names, listed.cpu_count, listed.memory_mb, listed.build_status) == ([name], 1, 512, "ready")
    assert await AsyncTemplate.delete(name, **engine.options)
    assert not await AsyncTemplate.delete(name, **engine.options)
    assert not await AsyncTemplate.alias_exists(name, **engine.options)


async def test_a_start_command_and_its_check(engine: Engine, name: str) -> None:
    template = (
        AsyncTemplate()
        .from_base_image()
        .set_start_cmd("sleep 0.3; touch /tmp/ready; sleep infinity", wait_for_file("/tmp/ready"))
    )
    await AsyncTemplate.build(template, name, **engine.options)
    assert await output_of(engine, name, "ls /tmp/ready") == "/tmp/ready\n"


async def test_a_dockerfile(engine: Engine, name: str, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("from a file\n")
    text = """
        ARG BASE=base
        FROM ${BASE}
        ARG WHO=alice
        ENV GREETING="hello $WHO" DOLLAR='$WHO'
        WORKDIR /srv/app
        COPY --chmod=600 hello.txt ./
        RUN echo "$GREETING" \\
            # in between
            > made
        RUN <<EOF
        cd /srv
        echo script > app/script
        EOF
        RUN cat > "$PWD/shell" <<"EOF"
        $WHO
        EOF
        USER $WHO
    """
    lines = "\n".join(line.strip() for line in text.splitlines())
    await AsyncTemplate.build(AsyncTemplate(tmp_path).from_dockerfile(lines), name, **engine.options)
    shown = await output_of(engine, name, "id -un; pwd; cat made script shell; stat -c '%a %U' hello.txt; echo $DOLLAR")
    assert shown == "alice\n/srv/app\nhello alice\nscript\n$WHO\n600 root\n$WHO\n"


async def test_wrong_arguments_are_refused_before_anything_is_sent(engine: Engine, name: str, tmp_path: Path) -> None:
    good = AsyncTemplate(tmp_path).from_base_image()
    for template, arguments in (
        (good, {}),
        (good, {"name": name, "cpu_count": 0}),
        (good, {"name": name, "memory_mb": "many"}),
        (good, {"name": name, "tags": ["no spaces"]}),
        (good, {"name": name, "on_build_logs": "print"}),
        ("base", {"name": name}),
        (AsyncTemplate(tmp_path).from_base_image().copy("missing", "/"), {"name": name}),
    ):
        with pytest.raises(InvalidArgumentException):
            await AsyncTemplate.build(template, **arguments, **engine.options)  # type: ignore[arg-type]  # wrong
    assert not await AsyncTemplate.exists(name, **engine.options)


async def test_a_large_file_arrives_whole(engine: Engine, name: str, tmp_path: Path) -> None:
    size = 5 << 20
    (tmp_path / "noise").write_bytes(os.urandom(size))
    template = AsyncTemplate(tmp_path).from_base_image().copy("noise", "/srv/noise")
    await AsyncTemplate.build(template, name, **engine.options)
    assert await output_of(engine, name, "stat -c %s /srv/noise") == f"{size}\n"
