"""File operations, to the letter of the filesystem service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grotte.engine.host import Guest, GuestError, HostError, SandboxHost, SandboxSpec
from tests.host.support import python, read_all, run, shell


async def refusal(awaitable: object) -> str:
    with pytest.raises(GuestError) as refused:
        await awaitable  # type: ignore[misc] # any coroutine
    return refused.value.code


async def write(box: Guest, path: str, data: bytes, user: str = "user") -> None:
    slot = await box.open_write(path, user)
    with open(slot.fd, "wb") as file:
        file.write(data)
    await box.commit(slot)


async def read(box: Guest, path: str, user: str = "user") -> bytes:
    return read_all((await box.open_read(path, user)).fd)


async def test_write_and_read_back(box: Guest) -> None:
    await write(box, "a/b/c.txt", b"hello")
    assert await read(box, "/home/user/a/b/c.txt") == b"hello"
    entry = await box.stat("a/b/c.txt", "user")
    assert (entry.name, entry.type, entry.path) == ("c.txt", "FILE_TYPE_FILE", "/home/user/a/b/c.txt")
    assert (entry.size, entry.mode, entry.permissions) == (5, 0o644, "-rw-r--r--")
    assert (entry.owner, entry.group) == ("user", "user")
    assert (await box.stat("a", "user")).owner == "user"


async def test_overwriting_keeps_the_mode_and_is_seen_whole_or_not_at_all(box: Guest) -> None:
    await shell(box, "echo old > f; chmod 600 f", user="root")
    slot = await box.open_write("/root/f", "root")
    os.write(slot.fd, b"new")
    os.close(slot.fd)
    assert await read(box, "/root/f", "root") == b"old\n"
    entry = await box.commit(slot)
    assert (entry.mode, await read(box, "/root/f", "root")) == (0o600, b"new")


async def test_aborted_upload_leaves_nothing(box: Guest) -> None:
    slot = await box.open_write("up", "user")
    os.close(slot.fd)
    await box.abort(slot)
    assert [entry.name for entry in await box.list_dir("", 1, "user") if "part" in entry.name] == []
    assert await refusal(box.commit(slot)) == "not_found"


async def test_upload_through_a_link_replaces_its_target(box: Guest) -> None:
    await shell(box, "echo old > target; ln -s target link")
    await write(box, "link", b"new")
    assert await read(box, "target") == b"new"
    assert (await box.stat("link", "user")).is_symlink


async def test_metadata(box: Guest) -> None:
    slot = await box.open_write("m", "user", {"origin": "here"})
    os.close(slot.fd)
    assert (await box.commit(slot)).metadata == {"origin": "here"}
    await write(box, "m", b"")
    assert (await box.stat("m", "user")).metadata == {}


async def test_a_list_in_several_answers(pybox: Guest) -> None:
    await python(pybox, "import os\nos.mkdir('/tmp/many')\nfor i in range(8000): open(f'/tmp/many/{i:0200}', 'w')")
    names = [entry.name for entry in await pybox.list_dir("/tmp", 2, "user")]
    assert names == ["many", *(f"{number:0200}" for number in range(8000))]


async def test_a_list_leaves_out_what_is_closed_even_to_root(box: Guest) -> None:
    paths = {entry.path for entry in await box.list_dir("/", 3, "user")}
    assert {"/etc/passwd", "/proc/self", "/usr/bin"} <= paths


async def test_a_home_that_is_no_absolute_path(box: Guest) -> None:
    await shell(box, "echo odd:x:78:78::some/where:/bin/sh >> /etc/passwd", user="root")
    assert (await box.stat("~", "odd")).path == "/"


async def test_metadata_that_is_no_text(pybox: Guest) -> None:
    await write(pybox, "m", b"")
    await python(
        pybox,
        r"""
        import os
        for name, value in ((b"a", b"\xff"), (b"b", b"x"), (b"\xff", b"x")):
            os.setxattr("m", b"user.e2b." + name, value)
        """,
        user="user",
    )
    assert (await pybox.stat("m", "user")).metadata == {"b": "x"}


async def test_links(box: Guest) -> None:
    await shell(box, "mkdir d; ln -s d good; ln -s nowhere bad; ln -s loop loop; mkfifo p")
    good, bad = await box.stat("good", "user"), await box.stat("bad", "user")
    assert (good.type, good.symlink_target, good.permissions) == ("FILE_TYPE_DIRECTORY", "/home/user/d", "Lrwxrwxrwx")
    assert (bad.type, bad.symlink_target, bad.mode) == ("FILE_TYPE_UNSPECIFIED", "/home/user/bad", 0)
    assert (await box.stat("p", "user")).permissions.startswith("p")
    assert await refusal(box.list_dir("loop", 1, "user")) == "failed_precondition"
    assert await refusal(box.open_read("p", "user")) == "invalid_argument"
    assert (await box.stat("/tmp", "user")).permissions == "dtrwxrwxrwx"
    assert (await box.stat("/dev/null", "user")).permissions == "Dcrw-rw-rw-"


async def test_list(box: Guest) -> None:
    await shell(box, "mkdir -p l/b/c l/a; touch l/b/f l/z; ln -s l s; ln -s b l/y")
    assert [e.path for e in await box.list_dir("s", 2, "user")] == [
        f"/home/user/s/{name}" for name in ("a", "b", "b/c", "b/f", "y", "z")
    ]
    assert [e.name for e in await box.list_dir("l", 0, "user")] == ["a", "b", "y", "z"]
    assert await refusal(box.list_dir("l/z", 1, "user")) == "invalid_argument"
    assert await refusal(box.list_dir("gone", 1, "user")) == "not_found"


async def test_names_that_are_no_text(box: Guest) -> None:
    await shell(box, "mkdir n; touch \"n/$(printf 'a\\377b')\"")
    assert [entry.name for entry in await box.list_dir("n", 1, "user")] == ["a\ufffdb"]


async def test_make_dir(box: Guest) -> None:
    entry = await box.make_dir("x/y", "user")
    assert (entry.permissions, entry.owner) == ("drwxr-xr-x", "user")
    assert await refusal(box.make_dir("x", "user")) == "already_exists"
    await shell(box, "touch file")
    assert await refusal(box.make_dir("file", "user")) == "invalid_argument"
    assert await refusal(box.make_dir("file/below", "user")) == "internal"


async def test_move(box: Guest) -> None:
    await shell(box, "echo 1 > one; echo 2 > two; mkdir d")
    assert (await box.move("one", "new/place", "user")).path == "/home/user/new/place"
    await box.move("two", "new/place", "user")
    assert await read(box, "new/place") == b"2\n"
    assert await refusal(box.move("gone", "x", "user")) == "not_found"
    assert await refusal(box.move("new/place", "d", "user")) == "internal"


async def test_remove(box: Guest) -> None:
    await shell(box, "mkdir -p t/u; touch t/u/f; ln -s /etc t/u/etc; chmod 0 t/u; echo x > file")
    await box.remove("t", "user")
    assert await refusal(box.stat("t", "user")) == "not_found"
    await box.remove("t", "user")
    await box.remove("file/below", "user")
    assert (await box.stat("/etc/passwd", "user")).size > 0
    assert await refusal(box.remove("/", "user")) == "invalid_argument"


async def test_remove_a_very_deep_tree(pybox: Guest) -> None:
    await python(pybox, "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')", user="user")
    await pybox.remove("d", "user")
    assert await refusal(pybox.stat("d", "user")) == "not_found"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a\0b", "invalid_argument"),
        ("~bob/x", "invalid_argument"),
        ("x" * 300, "invalid_argument"),
        ("/" + "y/" * 3000, "invalid_argument"),
        ("/etc/passwd/below", "not_found"),
        ("/no/such", "not_found"),
        ("\ud800", "invalid_argument"),
    ],
)
async def test_bad_paths(box: Guest, path: str, code: str) -> None:
    assert await refusal(box.stat(path, "user")) == code
    assert await refusal(box.open_read(path, "user")) == code


async def test_home(box: Guest) -> None:
    for path in ("", "~", "~/", "."):
        assert (await box.stat(path, "user")).path == "/home/user"
    assert (await box.stat("~", "root")).path == "/root"


async def test_directories_are_no_files(box: Guest) -> None:
    assert await refusal(box.open_read("/etc", "user")) == "invalid_argument"
    assert await refusal(box.open_write("/etc", "user")) == "invalid_argument"
    assert await refusal(box.open_write("/dev/null", "user")) == "invalid_argument"


async def test_files_of_proc_can_be_read(box: Guest) -> None:
    assert b"Linux" in await read(box, "/proc/version")


async def test_users(box: Guest) -> None:
    user = await box.user("user")
    assert (user.name, user.uid, user.gid, user.home) == ("user", 1000, 1000, "/home/user")
    assert await refusal(box.user("")) == "unauthenticated"
    await shell(box, "echo 'odd:x:99999999999999:0::/:/bin/sh\nshort\n:::' >> /etc/passwd", user="root")
    assert await refusal(box.user("odd")) == "unauthenticated"
    assert (await box.user("root")).uid == 0


async def test_owner_without_a_name(box: Guest) -> None:
    await shell(box, "touch /tmp/f; chown 4242:4243 /tmp/f", user="root")
    entry = await box.stat("/tmp/f", "user")
    assert (entry.owner, entry.group) == ("4242", "4243")


async def test_template_base(box: Guest, is_root: bool) -> None:
    script = "id -un; touch ~/f /tmp/f; ls -ld / /home/user | cut -d' ' -f1,3; cat /etc/resolv.conf"
    result = await shell(box, script)
    assert result.out.splitlines()[:3] == ["user", "drwxr-xr-x root", "drwxr-xr-x user"]
    assert (await run(box, "touch", "/usr/local/bin/tool", "/etc/made", "/var/lib/made", user="root")).status.code == 0
    owner = (await run(box, "stat", "-c", "%U", "/usr/bin/env")).out.strip()
    assert owner == ("root" if is_root else "nobody")


async def test_layers_lie_over_base(host: SandboxHost, tmp_path: Path) -> None:
    layer = tmp_path.parent / "outside"
    layer.mkdir(exist_ok=True)
    with pytest.raises(HostError, match="data directory"):
        await host.launch(SandboxSpec("outside", layers=(layer,)))
    inside = host.data_dir / "layer"
    (inside / "fs" / "opt").mkdir(parents=True)
    (inside / "fs" / "opt" / "tool").write_text("of the layer")
    (inside / "usr" / "local").mkdir(parents=True)
    (inside / "usr" / "local" / "added").write_text("too")
    guest = await host.launch(SandboxSpec("layered", layers=(inside,)))
    result = await shell(guest, "cat /opt/tool /usr/local/added; ls -d /etc/passwd /usr/bin/env")
    assert result.out == "of the layertoo/etc/passwd\n/usr/bin/env\n"
    await guest.kill()
