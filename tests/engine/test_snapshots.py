"""Snapshots of sandboxes: what is in them, who finds them, how they go."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from tests.engine.background import Background
from tests.engine.test_lifecycle import KEY, engine, wait_until
from tests.engine.wire import OTHER_KEY, Box, Wire, check_error
from tests.support.engine import Engine

WRITE = """
echo one > ~/file; mkdir ~/dir; ln -s file ~/dir/link; mkfifo ~/pipe; chmod 4750 ~/file; rm -rf ~/.bashrc
rm -rf ~/.profile; mkdir ~/.profile; setfattr -n user.note -v x ~/file 2>/dev/null; true
"""
SHOW = """
cat ~/file; readlink ~/dir/link; stat -c '%F %a %U' ~/pipe ~/file; ls -A ~/.profile; ls -d ~/.bashrc 2>/dev/null; true
"""
SHOWN = b"one\nfile\nfifo 644 user\nregular file 4750 user\n"


def snapshot(box: Box, **fields: object) -> str:
    answer = box.wire.post(f"/sandboxes/{box.id}/snapshots", json=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["snapshotID"])


def listed(wire: Wire, query: str = "") -> list[str]:
    return [entry["snapshotID"] for entry in wire.get(f"/snapshots{query}").json()]


def delete(wire: Wire, reference: str) -> None:
    assert wire.delete(f"/templates/{quote(reference, safe='')}").status_code == 204


def test_a_snapshot_is_a_template_with_all_that_was_written(wire: Wire) -> None:
    with wire.box() as box:
        assert box.sh(WRITE).stdout == b""
        reference = snapshot(box)
        assert box.sh("echo two > ~/file; cat ~/file").stdout == b"two\n"
    with wire.box(templateID=reference) as copy:
        assert copy.answer["templateID"] == reference.partition(":")[0]
        assert copy.sh(SHOW).stdout == SHOWN
        copy.sh("echo three > ~/file; rm ~/pipe")
        second = snapshot(copy)
    with wire.box(templateID=reference) as other:
        assert other.sh("cat ~/file").stdout == b"one\n"
    with wire.box(templateID=second) as other:
        assert other.sh("cat ~/file; ls ~").stdout == b"three\ndir\nfile\n"
        check_error(wire.delete(f"/templates/{second}"), 400)
    delete(wire, reference)
    check_error(wire.post("/v2/sandboxes", json={"templateID": reference}), 404)
    with wire.box(templateID=second) as other:
        assert other.sh("readlink ~/dir/link").stdout == b"file\n"
    delete(wire, second)


def test_processes_go_on_while_a_snapshot_is_taken(wire: Wire) -> None:
    with wire.box() as box:
        process = Background(box, "sleep 1000")
        reference = snapshot(box)
        assert process.signal("SIGNAL_SIGTERM").status_code == 200
        delete(wire, reference)


def test_a_paused_sandbox_stays_paused(wire: Wire) -> None:
    with wire.box() as box:
        wire.post(f"/sandboxes/{box.id}/pause")
        reference = snapshot(box)
        assert wire.get(f"/sandboxes/{box.id}").json()["state"] == "paused"
        delete(wire, reference)


def test_names_pages_and_filters(wire: Wire) -> None:
    with wire.box() as box:
        first = snapshot(box, name="named:v1")
        second, third = snapshot(box, name="named"), snapshot(box)
        assert listed(wire, f"?sandboxID={box.id}") == [third, second, first]
        assert listed(wire, "?name=named:v1") == [first]
        assert wire.get("/snapshots?name=named").json()[0] == {"snapshotID": second, "names": ["named:default"]}
        page = wire.get(f"/snapshots?sandboxID={box.id}&limit=2")
        assert [entry["snapshotID"] for entry in page.json()] == [third, second]
        rest = wire.get("/snapshots", params={"sandboxID": box.id, "nextToken": page.headers["x-next-token"]})
        assert [entry["snapshotID"] for entry in rest.json()] == [first]
        assert "x-next-token" not in rest.headers
    with wire.box(templateID="named:v1") as copy:
        assert copy.answer["alias"] == "named"
    delete(wire, "named:v1")
    delete(wire, second)
    assert wire.delete(f"/templates/{third}").status_code == 204
    check_error(wire.delete(f"/templates/{third}"), 404)


def test_a_name_means_one_snapshot(wire: Wire) -> None:
    with wire.box() as box:
        box.put_file("/home/user/n", b"1")
        first = snapshot(box, name="again")
        box.put_file("/home/user/n", b"2")
        second = snapshot(box, name="Again:default")
    assert listed(wire, "?name=again") == [second]
    for reference, number, alias in ((first, b"1", None), (second, b"2", "again"), ("again", b"2", "again")):
        with wire.box(templateID=reference) as copy:
            assert (copy.get_file("/home/user/n").content, copy.answer.get("alias")) == (number, alias)
            (entry,) = [entry for entry in wire.get("/v2/sandboxes").json() if entry["sandboxID"] == copy.id]
            assert entry.get("alias") == wire.get(f"/sandboxes/{copy.id}").json().get("alias") == alias
    delete(wire, "again")
    check_error(wire.post("/v2/sandboxes", json={"templateID": "again"}), 404)
    delete(wire, first)


def test_a_snapshot_cannot_have_the_name_of_a_template(wire: Wire) -> None:
    template = wire.post("/v3/templates", json={"name": "taken"}).json()["templateID"]
    with wire.box() as box:
        check_error(wire.post(f"/sandboxes/{box.id}/snapshots", json={"name": "taken:v2"}), 400)
    assert wire.delete(f"/templates/{template}").status_code == 204


def test_what_makes_no_sense_is_refused(wire: Wire) -> None:
    check_error(wire.delete("/templates/base"), 400)
    check_error(wire.delete("/templates/team/none:default"), 404)
    check_error(wire.delete("/templates/team%2Fnone%3Adefault"), 404)
    check_error(wire.get("/snapshots?nextToken=x"), 400)
    check_error(wire.get("/snapshots?limit=0"), 400)
    unknown = f"/sandboxes/{'i' + '0' * 20}"
    check_error(wire.post(f"{unknown}/snapshots", json={}), 404)
    check_error(wire.post(f"{unknown}/fork", json={}), 404)
    with wire.box() as box:
        for name in ("base", "a/b", "UPPER CASE", 5):
            check_error(wire.post(f"/sandboxes/{box.id}/snapshots", json={"name": name}), 400)
        check_error(wire.post(f"/sandboxes/{box.id}/fork", json={"count": 0}), 400)


def test_a_snapshot_is_its_owners_alone(wire: Wire, engine: Engine) -> None:
    with wire.box() as box, Wire(engine.url, OTHER_KEY) as other:
        reference = snapshot(box)
        assert listed(other) == []
        check_error(other.post("/v2/sandboxes", json={"templateID": reference}), 404)
        check_error(other.delete(f"/templates/{reference}"), 404)
        delete(wire, reference)


def test_forks_have_the_files_and_go_their_own_ways(wire: Wire) -> None:
    with wire.box(metadata={"a": "b"}, envVars={"FOO": "bar"}) as box:
        box.put_file("/home/user/x", b"kept")
        answer = wire.post(f"/sandboxes/{box.id}/fork", json={"timeout": 60, "count": 3})
        assert answer.status_code == 201
        forks = [Box(wire, entry["sandbox"]) for entry in answer.json()]
        assert len({fork.id for fork in forks} | {box.id}) == 4
        assert {fork.sh("cat ~/x; echo $FOO").stdout for fork in forks} == {b"keptbar\n"}
        assert wire.get(f"/sandboxes/{forks[0].id}").json()["metadata"] == {"a": "b"}
        assert listed(wire, f"?sandboxID={box.id}") == []
        for fork in forks:
            assert wire.delete(f"/sandboxes/{fork.id}").status_code == 204


def test_nothing_stays_of_what_nobody_needs(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"

    def layers() -> set[str]:
        return {path.name for path in data_dir.glob("host/layers/*")}

    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        with wire.box() as box:
            box.put_file("/home/user/x", b"kept")
            kept, dropped = snapshot(box).partition(":")[0], snapshot(box).partition(":")[0]
            (fork,) = wire.post(f"/sandboxes/{box.id}/fork", json={"timeout": 60}).json()
            assert len(layers()) == 3
            assert wire.delete(f"/sandboxes/{fork['sandbox']['sandboxID']}").status_code == 204
            wait_until(lambda: layers() == {kept, dropped}, "the layer of a fork was left")
            delete(wire, dropped)
            assert layers() == {kept}
        copy = Box(wire, wire.create(templateID=kept))
        running.process.kill()
        running.process.wait()
    (data_dir / "host/layers/half.new").mkdir()
    with engine(data_dir) as running, Wire(running.url, KEY) as wire:
        assert layers() == {kept}
        copy.wire = wire
        assert wire.post(f"/v2/sandboxes/{copy.id}/connect", json={}).status_code == 201
        assert copy.get_file("/home/user/x").content == b"kept"
        assert wire.delete(f"/sandboxes/{copy.id}").status_code == 204
        delete(wire, kept)
        assert layers() == set()
