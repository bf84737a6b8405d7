"""Names of images, what they mean, and the small languages of steps."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grotte.engine.builds import contexts
from grotte.engine.builds.logs import MAX_ENTRIES, MAX_MESSAGE, BuildLogs
from grotte.engine.builds.schema import SCHEMA
from grotte.engine.builds.steps import expand, read_steps
from grotte.engine.faults import ControlFault
from grotte.engine.images.puller import distinct
from grotte.engine.images.reference import ImageError, parse_image
from grotte.engine.images.skopeo import read_config
from grotte.engine.images.sources import read_image_map

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("debian", ("", "debian", "", "")),
        ("team/app:1.0", ("", "team/app", "1.0", "")),
        ("localhost/app", ("localhost", "app", "", "")),
        ("localhost:5000/team/app:1", ("localhost:5000", "team/app", "1", "")),
        ("registry.example/a/b/c", ("registry.example", "a/b/c", "", "")),
        ("[::1]:5000/app", ("[::1]:5000", "app", "", "")),
        (f"app:1@{DIGEST}", ("", "app", "1", DIGEST)),
    ],
)
def test_names_of_images_are_read(text: str, parts: tuple[str, ...]) -> None:
    image = parse_image(text)
    assert (image.registry, image.name, image.tag, image.digest) == parts


@pytest.mark.parametrize(
    "text",
    ["", "A", "a b", "a:", "a:b c", "-a", "--all", "a@sha256:1", "a//b", "a/../b", "x.y:port/a", "a" * 600, "a\n"],
)
def test_what_is_no_name_of_an_image_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="not the name of an image"):
        parse_image(text)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("localhost/a", True),
        ("localhost:5000/a", True),
        ("127.0.0.1:5000/a", True),
        ("127.9.9.9/a", True),
        ("[::1]:5000/a", True),
        ("10.0.0.1:5000/a", False),
        ("localhost.example/a", False),
        ("a", False),
    ],
)
def test_only_this_machine_is_asked_without_tls(name: str, plain: bool) -> None:
    assert parse_image(name).plain_http is plain


def test_names_stand_for_what_the_engine_was_told(tmp_path: Path) -> None:
    entries = ["debian=localhost:5000/deb", "debian:11=old:eleven", "team/=localhost:5000/", f"root={tmp_path}"]
    images = read_image_map(entries)
    found = {
        name: str(images.find(name)) for name in ("debian", "debian:12", "debian:11", "debianish", "team/a:1", "other")
    }
    assert found == {
        "debian": "localhost:5000/deb",
        "debian:12": "localhost:5000/deb:12",
        "debian:11": "old:eleven",
        "debianish": "debianish",
        "team/a:1": "localhost:5000/a:1",
        "other": "other",
    }
    assert images.find("root") == images.find("root:latest") == tmp_path
    for entry in ("debian", "=x", "x=", "x=A B", "x=/nowhere/at/all"):
        with pytest.raises(ValueError, match=r"NAME=|name of an image|no root file system"):
            read_image_map([entry])


def test_variables_are_expanded_as_in_a_dockerfile() -> None:
    envs = {"A": "a", "B_1": "b", "EMPTY": ""}
    known = {
        "$A$B_1": "ab",
        "${A}x${B_1}": "axb",
        "$NONE.": ".",
        "${EMPTY:-word}": "word",
        "${A:-word}": "a",
        "${A:+word}${NONE:+word}": "word",
        r"\$A \\ \n": r"$A \ \n",
        "100$ $1 ${": "100$ $1 ${",
    }
    assert {text: expand(text, envs) for text in known} == known


def test_values_of_variables_are_not_in_the_log() -> None:
    (step,) = read_steps([{"type": "ENV", "args": ["TOKEN", "do-not-log-me"]}])
    assert step.text == "ENV TOKEN"


def test_a_layer_that_comes_twice_counts_where_it_comes_last() -> None:
    assert distinct(["a", "b", "a", "c", "b"]) == ["a", "c", "b"]


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b'{"rootfs": {"diff_ids": ["../../etc"]}}',
        b'{"rootfs": {"diff_ids": []}, "os": "plan9"}',
        b'{"rootfs": {"diff_ids": []}, "architecture": "mips"}',
        b"[" * 100_000,
    ],
)
def test_configurations_that_make_no_sense_are_refused(config: bytes) -> None:
    with pytest.raises(ImageError):
        read_config(config)


def test_a_log_is_bounded() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("CREATE TABLE snapshots (id TEXT)")
    database.executescript(SCHEMA)
    logs = BuildLogs(database)
    writer = logs.writer("build")
    writer.write("x" * (MAX_MESSAGE + 1))
    database.execute("BEGIN")
    for _ in range(MAX_ENTRIES + 10):
        writer.write("line")
    writer.write("why", "error")
    database.execute("COMMIT")
    first, *_ = logs.page("build", 0, 1)
    assert len(first.message) == MAX_MESSAGE + 1
    last = logs.page("build", MAX_ENTRIES - 1, 10)
    assert [entry.message for entry in last] == ["line", f"no more than {MAX_ENTRIES} messages are kept", "why"]
    assert [entry.message for entry in logs.page("build", 0, 10, "error")] == ["why"]
    assert len(logs.writer("build").last) == 0
    database.close()


async def test_addresses_for_uploads_are_an_owners_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Door: so many addresses that those of others go.
    monkeypatch.setattr(contexts, "MAX_UPLOADS", 3)
    offered = contexts.Contexts(tmp_path / "contexts")
    others = offered.offer("other", "a" * 64)
    own = [offered.offer("greedy", "b" * 64) for _ in range(5)]

    async def nothing() -> AsyncIterator[bytes]:
        yield b"this is no archive"

    for token, status in ((others, 400), (own[4], 400), (own[1], 403)):
        with pytest.raises(ControlFault) as caught:
            await offered.receive(token, nothing())
        assert caught.value.status == status
