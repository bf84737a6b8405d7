"""Calls on templates, as they go over the wire, and services that do not play along."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from grotte import (
    ApiParams,
    ApiUnreachableException,
    AsyncGrotte,
    AsyncTemplate,
    BuildException,
    BuildInfo,
    FileUploadException,
    GrotteException,
    InvalidArgumentException,
    LogEntry,
    SandboxException,
    TemplateException,
)
from tests.support.stub_service import Answer, Script, Seen, StubService, as_json, running_stub

NEW = "POST /v3/templates"
START = "POST /v2/templates/t1/builds/b1"
STATUS = "GET /templates/t1/builds/b1/status"
TIME = "2026-01-01T00:00:00Z"
Answers = Answer | list[Answer] | Script
BUILT = {"templateID": "t1", "buildID": "b1", "public": False, "names": ["n"], "tags": ["v1"], "aliases": ["n"]}


def options(stub: StubService) -> ApiParams:
    return {"api_url": stub.url, "api_key": "grt_key"}


def status(state: str, *messages: str, **more: object) -> Answer:
    entries = [{"timestamp": TIME, "message": message, "level": "loud"} for message in messages]
    return as_json({"templateID": "t1", "buildID": "b1", "status": state, "logs": [], "logEntries": entries} | more)


def willing(stub: StubService) -> StubService:
    """A service that builds everything."""
    stub.answers[NEW] = as_json(BUILT, 202)
    stub.answers[START] = Answer(202)
    stub.answers[STATUS] = status("ready")
    return stub


def offer_to(stub: StubService, offer: Script) -> None:
    """Answer for whatever hash."""

    class Offers(dict[str, Answers]):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]  # for one kind of value
            return offer if "/files/" in key else super().get(key)

    stub.answers = Offers(stub.answers)


async def test_what_a_build_sends(stub: StubService) -> None:
    template = AsyncTemplate().from_image("i", "me", "secret").run_cmd("make", user="root").set_start_cmd("a", "b")
    async with AsyncGrotte(**options(willing(stub))) as client:
        info = await client.Template.build(template, "n:v1", tags=["v2"], cpu_count=4, memory_mb=512, skip_cache=True)
    assert info == BuildInfo("t1", "b1", "n:v1", "n:v1", ["v1"])
    new, start, last = stub.seen
    assert new.json == {"name": "n:v1", "tags": ["v2"], "cpuCount": 4, "memoryMB": 512}
    assert new.headers["x-api-key"] == "grt_key"
    assert start.json == {
        "steps": [{"type": "RUN", "args": ["make", "root"], "force": False}],
        "force": True,
        "fromImage": "i",
        "fromImageRegistry": {"type": "registry", "username": "me", "password": "secret"},
        "startCmd": "a",
        "readyCmd": "b",
    }
    assert last.query == [("logsOffset", "0"), ("limit", "100")]
    again = await AsyncTemplate.build_in_background(AsyncTemplate(), alias="n", **options(stub))
    assert again.name == "n"
    assert stub.calls(NEW)[-1].json == {"name": "n", "cpuCount": 2, "memoryMB": 1024}


async def test_files_are_sent_where_the_service_says_and_no_key_goes_elsewhere(
    stub: StubService, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("content")
    (tmp_path / "b").write_text("known")
    hashes: list[str] = []
    with running_stub() as store:
        store.answers["PUT /bucket"] = Answer(200)

        def offer(seen: Seen) -> Answer:
            hashes.append(seen.path.rpartition("/")[2])
            return as_json({"present": True, "url": f"{store.url}/bucket?signature=s3cret"}, 201)

        offer_to(willing(stub), offer)
        template = AsyncTemplate(tmp_path).from_base_image().copy("b", "/").copy("a", "/", force_upload=True)
        await AsyncTemplate.build(template.copy("b", "/"), "n", **options(stub))
        (upload,) = store.seen
    assert len(hashes) == 2
    assert (upload.raw_query, "x-api-key" in upload.headers) == ("signature=s3cret", False)
    assert upload.headers["content-length"] == str(len(upload.body))
    with tarfile.open(fileobj=io.BytesIO(upload.body), mode="r:gz") as archive:
        assert archive.getnames() == ["a"]
    sent = stub.calls(START)[0].json
    assert isinstance(sent, dict)
    assert [step["filesHash"] for step in sent["steps"]] == [hashes[0], hashes[1], hashes[0]]


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("/store?signature=s3cret", Answer(403, b"<Error>too late</Error>")),
        ("/store?signature=s3cret", as_json({"code": 400, "message": "no archive"}, 400)),
        ("/store?signature=s3cret", Answer(200, hang_up=True)),
        ("gopher://store?signature=s3cret", None),
        ("http://127.0.0.1:9/store?signature=s3cret", None),
    ],
)
async def test_files_that_cannot_be_sent(stub: StubService, tmp_path: Path, url: str, answer: Answer | None) -> None:
    (tmp_path / "a").write_text("content")
    offer_to(willing(stub), lambda _: as_json({"present": False, "url": url}, 201))
    if answer is not None:
        stub.answers["PUT /store"] = answer
    template = AsyncTemplate(tmp_path).from_base_image().copy("a", "/")
    with pytest.raises(FileUploadException) as raised:
        await AsyncTemplate.build(template, "n", **options(stub))
    assert "s3cret" not in str(raised.value)
    assert not stub.calls(START)


async def test_the_log_is_read_to_its_end(stub: StubService) -> None:
    willing(stub).answers[STATUS] = [
        status("waiting"),
        status("building", "a", "b"),
        status("ready", "c"),
        status("ready"),
    ]
    entries: list[LogEntry] = []
    await AsyncTemplate.build(AsyncTemplate(), "n", on_build_logs=entries.append, **options(stub))
    assert [(entry.level, entry.message) for entry in entries[-4:-1]] == [("info", "a"), ("info", "b"), ("info", "c")]
    assert [dict(seen.query)["logsOffset"] for seen in stub.calls(STATUS)] == ["0", "0", "2", "3"]


async def test_a_service_that_always_has_the_same_page_does_not_keep_us(stub: StubService) -> None:
    willing(stub).answers[STATUS] = status("ready", "again")
    entries: list[LogEntry] = []
    await AsyncTemplate.build(AsyncTemplate(), "n", on_build_logs=entries.append, **options(stub))
    assert [entry.message for entry in entries].count("again") == 1


@pytest.mark.parametrize(
    ("more", "message", "step"),
    [
        ({}, "Build failed", None),
        ({"reason": {"message": "bad step"}}, "bad step", None),
        ({"reason": {"message": "bad end", "step": "finalize", "logEntries": None}}, "bad end", "finalize"),
    ],
)
async def test_failures(stub: StubService, more: dict[str, object], message: str, step: str | None) -> None:
    willing(stub).answers[STATUS] = status("error", "x", **more)
    with pytest.raises(BuildException, match=message) as raised:
        await AsyncTemplate.build(AsyncTemplate(), "n", **options(stub))
    assert raised.value.step == step


@pytest.mark.parametrize(
    ("route", "answer", "kind"),
    [
        (NEW, as_json({"code": 500, "message": "sorry"}, 500), BuildException),
        (NEW, as_json({"code": 400, "message": "no such name"}, 400), InvalidArgumentException),
        (NEW, as_json({"templateID": 3}, 202), SandboxException),
        (NEW, Answer(202, hang_up=True), ApiUnreachableException),
        (START, as_json({"code": 403, "message": "not yours"}, 403), BuildException),
        (STATUS, as_json({"code": 404, "message": "gone"}, 404), BuildException),
        (STATUS, status("dancing"), SandboxException),
    ],
)
async def test_answers_that_are_none(
    stub: StubService, route: str, answer: Answer, kind: type[GrotteException]
) -> None:
    willing(stub).answers[route] = answer
    with pytest.raises(kind):
        await AsyncTemplate.build(AsyncTemplate(), "n", **options(stub))


async def test_what_a_listener_raises_is_raised(stub: StubService) -> None:
    def refuse(entry: LogEntry) -> None:
        if "Requesting" in entry.message:
            raise KeyError(entry.message)

    with pytest.raises(KeyError):
        await AsyncTemplate.build(AsyncTemplate(), "n", on_build_logs=refuse, **options(willing(stub)))
    assert not stub.seen


async def test_names(stub: StubService) -> None:
    path = "GET /templates/aliases/team%2Fn%3Av1"
    stub.answers[path] = [as_json({"templateID": "t", "public": True}), Answer(403), Answer(404), Answer(500)]
    found = [await AsyncTemplate.exists("team/n:v1", **options(stub)) for _ in range(3)]
    assert found == [True, True, False]
    with pytest.raises(TemplateException):
        await AsyncTemplate.exists("team/n:v1", **options(stub))


async def test_tags(stub: StubService) -> None:
    stub.answers["POST /templates/tags"] = as_json({"tags": ["a"], "buildID": "b1"}, 201)
    stub.answers["DELETE /templates/tags"] = [Answer(204), as_json({"code": 404, "message": "no"}, 404)]
    given = await AsyncTemplate.assign_tags("n:v1", "a", **options(stub))
    assert (given.build_id, given.tags) == ("b1", ["a"])
    await AsyncTemplate.remove_tags("n", ["a", "b"], **options(stub))
    assert [seen.json for seen in stub.seen] == [{"target": "n:v1", "tags": ["a"]}, {"name": "n", "tags": ["a", "b"]}]
    with pytest.raises(TemplateException):
        await AsyncTemplate.remove_tags("n", "a", **options(stub))
    for wrong in ([], "", [1], 3):
        with pytest.raises(InvalidArgumentException):
            await AsyncTemplate.remove_tags("n", wrong, **options(stub))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(InvalidArgumentException):
        await AsyncTemplate.get_build_status("b1", **options(stub))  # type: ignore[arg-type]  # wrong on purpose
