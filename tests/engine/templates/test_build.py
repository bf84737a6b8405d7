"""Templates from steps on `base`: what is done, what is kept, what is said."""

from __future__ import annotations

import uuid

import pytest

from tests.engine.background import Background, running
from tests.engine.templates.building import Templates, archive, copy, run, step
from tests.engine.wire import check_error
from tests.support.engine import Engine

DIGEST = "0123456789abcdef" * 4
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_steps_are_done_one_on_the_other_and_sandboxes_start_from_the_last(templates: Templates) -> None:
    build = templates.build(
        "steps",
        step("ENV", "FOO", "bar", "BAZ", "a b"),
        step("ENV", "PATH", "/opt/bin:$PATH", "BAR", "${FOO}/${NONE:-none}"),
        run("echo $BAR > foo; whoami >> foo; pwd >> foo"),
        run("cat /etc/shadow > /dev/null && touch /root-was-here", "root"),
        step("WORKDIR", "/app"),
        step("WORKDIR", "below"),
        run("pwd > made"),
        step("USER", "alice"),
        run("id -un > ~/who"),
        cpuCount=1,
    )
    assert build.wire.delete(f"/templates/{build.template}x").status_code in (400, 404)
    with templates.box(templateID="steps", envVars={"BAZ": "mine"}) as box:
        assert box.answer["templateID"] == build.template
        assert box.answer["alias"] == "steps"
        assert box.sh("cat /home/user/foo").stdout == b"bar/none\nuser\n/home/user\n"
        assert box.sh("pwd; id -un; echo $FOO $BAZ $PATH; cat made ~/who; ls -d /root-was-here").stdout == (
            f"/app/below\nalice\nbar mine /opt/bin:{PATH}\n/app/below\nalice\n/root-was-here\n".encode()
        )
        assert box.sh("stat -c %U /app . made").stdout == b"user\nuser\nuser\n"
        # an empty path is the working directory, of which a list of processes says nothing
        assert box.fs("Stat").json()["entry"]["path"] == "/app/below"
        watched = box.fs("CreateWatcher").json()["watcherId"]
        box.put_file("/app/below/new", b"")
        assert box.fs("GetWatcherEvents", watcherId=watched).json()["events"][0]["name"] == "new"
        left = Background(box, "sleep 60")
        assert [one["config"].get("cwd") for one in running(box) if one["pid"] == left.pid] == [None]


def test_the_log_tells_of_each_step_and_its_output(templates: Templates) -> None:
    build = templates.build("log", run("echo one; echo two >&2"), run("printf 'no newline'"))
    messages = build.messages()
    assert messages == [
        "FROM base",
        "[1/2] RUN echo one; echo two >&2",
        *messages[2:4],
        "[2/2] RUN printf 'no newline'",
        "no newline",
        "the template is ready",
    ]
    assert set(messages[2:4]) == {"one", "two"}
    assert build.messages("warn") == ["two"]
    status = build.status(logsOffset=1, limit=1)
    (entry,) = status["logEntries"]
    assert entry["step"] == "1"
    assert (entry["level"], entry["message"]) == ("info", messages[1])
    assert "reason" not in status
    logs = templates.get(f"{build.path}/logs", params={"direction": "backward", "limit": "2"}).json()["logs"]
    assert [entry["message"] for entry in logs] == messages[:-3:-1]
    check_error(templates.get(f"{build.path}/status?level=loud"), 400)
    check_error(templates.get(f"{build.path}/status?logsOffset=-1"), 400)


def test_what_was_done_before_is_not_done_again(templates: Templates) -> None:
    steps = [run("date +%s%N > stamp; echo done"), step("WORKDIR", "/app"), run("date +%s%N > /tmp/other")]

    def stamps(name: str) -> list[bytes]:
        with templates.box(templateID=name) as box:
            return box.sh("cat /home/user/stamp /tmp/other").stdout.split()

    templates.build("cached", *steps)
    first = stamps("cached")
    again = templates.build("cached:again", *steps)
    assert stamps("cached:again") == first
    assert sum(message.startswith("CACHED") for message in again.messages()) == 3
    assert "done" not in again.messages()
    steps[2] = run("date +%s%N > /tmp/other", force=True)
    templates.build("cached", *steps)
    assert stamps("cached")[0] == first[0]
    assert stamps("cached")[1] != first[1]
    templates.build("cached", *steps, force=True)
    assert stamps("cached")[0] != first[0]
    templates.build("cached", step("ENV", "A", "b"), *steps)
    assert stamps("cached")[0] not in (first[0], stamps("cached:again"))


def test_a_failed_step_is_named_with_its_output(templates: Templates) -> None:
    reason = templates.failure("failed", run("true"), run("echo before; echo why >&2; exit 7"), run("true"))
    assert reason["step"] == "2"
    assert reason["message"].startswith("step 2, RUN echo before; echo why >&2; exit 7: the command ended with exit")
    assert set(reason["message"].split("\n")[1:]) == {"before", "why"}
    assert [(entry["level"], entry["step"]) for entry in reason["logEntries"]] == [("error", "2")]
    check_error(templates.post("/v2/sandboxes", json={"templateID": "failed"}), 404)
    assert "signal 9" in templates.failure("failed", run("kill -9 $$"))["message"]
    assert templates.failure("failed", run("true", "nobody-there"))["step"] == "1"


def test_a_failed_build_leaves_the_one_before(templates: Templates) -> None:
    templates.build("kept", run("echo one > /tmp/x"))
    templates.failure("kept", run("false"))
    with templates.box(templateID="kept") as box:
        assert box.sh("cat /tmp/x").stdout == b"one\n"


def test_templates_stand_on_templates_and_snapshots(templates: Templates) -> None:
    templates.build("below", step("ENV", "A", "1"), run("echo below > /tmp/x"), step("USER", "root"))
    templates.build("above", run("cat /tmp/x > /y; echo $A >> /y; id -un >> /y"), fromTemplate="below")
    with templates.box(templateID="above") as box:
        assert box.sh("cat /y; id -un").stdout == b"below\n1\nroot\nroot\n"
        taken = templates.post(f"/sandboxes/{box.id}/snapshots", json={}).json()["snapshotID"]
    templates.build("higher", run("cat /y > z"), fromTemplate=taken)
    with templates.box(templateID="higher") as box:
        assert box.sh("cat ~/z; echo $A; id -un").stdout == b"below\n1\nroot\n1\nroot\n"
    assert "not found" in templates.failure("lost", fromTemplate="nowhere")["message"]
    assert templates.delete(f"/templates/{taken}").status_code == 204


@pytest.mark.parametrize("image", ["base", "parallactic/base", "e2bdev/base", "e2bdev/base:latest", None])
def test_the_default_image_of_other_clients_is_base(templates: Templates, image: str | None) -> None:
    build = templates.build("default-image", **({} if image is None else {"fromImage": image}))
    assert build.messages()[0] == "FROM base"


def test_sizes_are_those_that_were_asked_for(templates: Templates) -> None:
    build = templates.request_build("small", cpuCount=1, memoryMB=256)
    build.start()
    assert build.wait()["status"] == "ready"
    with templates.box(templateID="small") as box:
        detail = templates.get(f"/sandboxes/{box.id}").json()
        assert (detail["cpuCount"], detail["memoryMB"]) == (1, 256)
    shown = templates.get("/templates/small").json()
    assert (shown["cpuCount"], shown["memoryMB"], shown["spawnCount"]) == (1, 256, 1)
    for field, value in (("cpuCount", 0), ("memoryMB", 1), ("cpuCount", "2"), ("memoryMB", 2**40)):
        check_error(templates.post("/v3/templates", json={"name": "small", field: value}), 400)


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "DANCE", "args": []}],
        [{"type": "RUN", "args": []}],
        [{"type": "RUN", "args": ["a", "b", "c"]}],
        [{"type": "RUN", "args": ["a\0b"]}],
        [{"type": "RUN", "args": "ls"}],
        [{"type": "ENV", "args": ["A"]}],
        [{"type": "ENV", "args": ["A B", "c"]}],
        [{"type": "COPY", "args": ["a", "b"]}],
        [copy("../a", "b", digest=DIGEST)],
        [copy("/etc/passwd", "b", digest=DIGEST)],
        [copy("a", "b", mode="rwx", digest=DIGEST)],
        [copy("a", "b", "x y", digest=DIGEST)],
        [copy("a", "b", digest="../../etc")],
        [{"type": "WORKDIR", "args": [""]}],
        [{"type": "USER", "args": ["-x y"]}],
        "RUN",
        [7],
        [run("true")] * 1001,
    ],
)
def test_steps_that_make_no_sense_are_refused(templates: Templates, steps: object) -> None:
    build = templates.request_build("refused")
    check_error(templates.post(f"/v2{build.path}", json={"steps": steps}), 400)
    assert build.status()["status"] == "waiting"


def test_builds_that_make_no_sense_are_refused(templates: Templates) -> None:
    build = templates.request_build("refused")
    for fields in ({"fromImage": "a", "fromTemplate": "b"}, {"fromImage": "No Image"}, {"fromImage": "a b"}):
        check_error(templates.post(f"/v2{build.path}", json=fields), 400)
    registry = {"type": "aws", "awsAccessKeyId": "a", "awsSecretAccessKey": "b", "awsRegion": "c"}
    check_error(templates.post(f"/v2{build.path}", json={"fromImage": "a", "fromImageRegistry": registry}), 501)
    check_error(templates.post(f"/v2{build.path}", json={"fromImage": "a", "fromImageRegistry": {"type": "x"}}), 400)
    check_error(templates.post(f"/v2/templates/{build.template}/builds/none", json={}), 400)
    check_error(templates.post(f"/v2/templates/{build.template}/builds/{uuid.uuid4()}", json={}), 404)
    check_error(templates.post(f"/v2/templates/nobody/builds/{build.build}", json={}), 404)
    build.start()
    assert build.wait()["status"] == "ready"
    check_error(templates.post(f"/v2{build.path}", json={}), 400)
    for name in ("base", "a/b", "A B", "x:00000000-0000-0000-0000-000000000000", 7, None):
        check_error(templates.post("/v3/templates", json={"name": name}), 400)


def test_copies_merge_as_docker_has_it(templates: Templates) -> None:
    build = templates.request_build("copies")
    files = archive(
        ("dir", None), ("dir/a", b"a"), ("dir/sub", None), ("dir/sub/b", b"b"), ("dir/link", "sub/b"), ("x.py", b"x"),
        ("y.py", b"y"), ("single", b"s"),
    )  # fmt: skip
    templates.upload(build.template, DIGEST, files)
    build.start(
        steps=[
            run("mkdir -p /old/sub && echo old > /old/sub/kept && echo old > /old/a && ln -s old /link", "root"),
            copy("dir", "/new", digest=DIGEST),
            copy("dir/", "/link", "root:daemon", "0755", digest=DIGEST),
            copy("*.py", "/py", "1234:5678", digest=DIGEST),
            copy("single", "/as/file", digest=DIGEST),
            copy("single", "/as/dir/", digest=DIGEST),
            copy("single", ".", digest=DIGEST),
            copy("single", "/old", digest=DIGEST),
            copy(".", "all", digest=DIGEST),
            copy("**/b", "/deep/", digest=DIGEST),
        ]
    )
    assert build.wait()["status"] == "ready", build.messages()
    show = "stat -c '%n %F %a %U %u:%g %Y'"
    with templates.box(templateID="copies") as box:
        assert box.sh("cd /new; find . | sort; readlink link; stat -c %U a link sub").stdout == (
            b".\n./a\n./link\n./sub\n./sub/b\nsub/b\nuser\nuser\nuser\n"
        )
        assert box.sh("cat /old/sub/kept /old/a /old/sub/b /old/single; readlink /link").stdout == b"old\nabsold\n"
        assert box.sh(f"{show} /old/a /py/x.py /py").stdout.decode().split("\n")[:2] == [
            "/old/a regular file 755 root 0:1 1000000000",
            "/py/x.py regular file 644 UNKNOWN 1234:5678 1000000000",
        ]
        assert box.sh("cat /as/file /as/dir/single ~/single ~/all/dir/sub/b /deep/b; ls /deep").stdout == b"sssbbb\n"
        assert box.sh("ls -A / | grep copy; ls -A ~").stdout.split() == box.sh("ls -A ~").stdout.split()


def test_a_copy_that_cannot_be_says_why(templates: Templates) -> None:
    build = templates.request_build("bad-copies")
    templates.upload(build.template, DIGEST[::-1], archive(("a", b"a"), ("dir", None), compress=False))
    assert "matches" in templates.failure("bad-copies", copy("b", "/x", digest=DIGEST[::-1]))["message"]
    assert "directory" in templates.failure("bad-copies", copy("a", "/etc/passwd/x", digest=DIGEST[::-1]))["message"]
    assert "not uploaded" in templates.failure("bad-copies", copy("a", "/x", digest="0" * 64))["message"]
    reason = templates.failure("bad-copies", copy("a", "/x", "nobody-there", digest=DIGEST[::-1]))
    assert "invalid username" in reason["message"]


def test_builds_run_in_sandboxes(templates: Templates, builder: Engine) -> None:
    templates.build(
        "fenced", run("ls /proc/1/root/ 2>&1; test ! -e /work; hostname > /tmp/h; ps aux | wc -l > /tmp/ps")
    )
    with templates.box(templateID="fenced") as box:
        assert box.sh("cat /tmp/h").stdout == b"build\n"
        assert box.sh("cat /etc/hostname; hostname").stdout.split() == [box.id.encode()] * 2
