"""Images of a registry and of this machine."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.engine.templates.building import Templates, packed, run, step
from tests.support.engine import Engine
from tests.support.images import HTPASSWD, SECRET, Layer, Layout, Registry, layer, running_registry, tar_of


def file(tar: tarfile.TarFile, name: str, data: bytes = b"", **more: object) -> None:
    """Add a member with any properties."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def test_an_image_without_glibc_is_built_on_and_started(templates: Templates, registry: Registry, musl: Layer) -> None:
    image = registry.push("musl:1", musl, envs=["GREETING=hi", "PATH=/bin:/opt"], more=["mips"])
    build = templates.build("musl", run("hello > ~/said; echo $GREETING >> ~/said; id -un >> ~/said"), fromImage=image)
    assert "unpacking layer 1 of 1" in build.messages()
    with templates.box(templateID="musl") as box:
        assert box.sh("cat ~/said; pwd; echo $PATH").stdout == b"hello from musl\nhi\nuser\n/home/user\n/bin:/opt\n"
        # what every client runs commands with
        assert box.start("/bin/bash", "-l", "-c", "echo $0; hello").stdout == b"/bin/sh\nhello from musl\n"
        assert box.put_file("/tmp/x", b"x").status_code == 200
        assert box.sh("test -e /usr/bin/python3").end.get("exitCode") == 1
    again = templates.build("musl", run("hello > ~/said; echo $GREETING >> ~/said; id -un >> ~/said"), fromImage=image)
    assert [m for m in again.messages() if m.startswith(("unpacking", "RUN", "["))] == []


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_layers_of_every_compression_are_unpacked_and_shared(
    templates: Templates, registry: Registry, musl_root: Path, compression: str
) -> None:
    extra = packed(lambda tar: file(tar, f"etc/{compression}", b"x"), compress=False)
    tar = tar_of(musl_root)
    image = registry.push(f"compressed:{compression}", layer(tar, compression), layer(extra, compression))
    build = templates.build(f"compressed-{compression}", run(f"hello && test -e /etc/{compression}"), fromImage=image)
    assert "unpacking layer 2 of 2" in build.messages()


def test_whiteouts_hide_what_is_below(templates: Templates, registry: Registry, musl: Layer) -> None:
    def below(tar: tarfile.TarFile) -> None:
        for name in ("d/a", "d/b", "opaque/old", "opaque/sub/old", "kept"):
            file(tar, name, b"below")
        file(tar, "twice", b"1")
        file(tar, "hard", type=tarfile.LNKTYPE, linkname="kept")

    def above(tar: tarfile.TarFile) -> None:
        file(tar, "d/.wh.a")
        file(tar, ".wh.none")
        file(tar, "opaque/.wh..wh..opq")
        file(tar, "opaque/new", b"new")
        file(tar, ".wh..wh.plnk")
        file(tar, "owned", b"x", uid=33, gid=44, mode=0o4751, mtime=1234567890)
        file(tar, "dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        file(tar, "fifo", type=tarfile.FIFOTYPE, mode=0o600)
        file(tar, "dir", type=tarfile.DIRTYPE, mode=0o1777, uid=7)

    layers = [layer(packed(fill, compress=False)) for fill in (below, above)]
    image = registry.push("whiteouts", musl, *layers, layers[1])
    templates.build("whiteouts", fromImage=image)
    with templates.box(templateID="whiteouts") as box:
        shown = box.sh(
            "ls /d /opaque; cat /opaque/new /hard; stat -c '%F %a %u %g %Y' /owned /fifo; stat -c '%a %u' /dir"
        )
        assert shown.stdout.decode().split("\n") == [
            *("/d:", "b", "", "/opaque:", "new", "newbelowregular file 4751 33 44 1234567890"),
            *("fifo 600 0 0 0", "1777 7", ""),
        ]
        assert box.sh("echo x > /dev/null && ls /dev/null").stdout == b"/dev/null\n"


@pytest.mark.parametrize("name", ["musl-dir", "musl-tar", "musl-tar:latest"])
def test_names_are_mapped_to_root_file_systems(templates: Templates, name: str) -> None:
    templates.build("mapped", run("hello"), fromImage=name)


def test_credentials_are_used_and_nowhere_kept(
    templates: Templates, builder: Engine, data_dir: Path, musl: Layer, tmp_path: Path
) -> None:
    credentials = {"type": "registry", "username": "user", "password": SECRET}
    with running_registry(tmp_path / "room", HTPASSWD) as private:
        layout = Layout(tmp_path / "layout")
        layout.index([layout.image([musl])])
        image = private.push_layout("secret", layout, f"--dest-creds=user:{SECRET}")
        reason = templates.failure("private", fromImage=image)
        assert (reason["step"], "uthenti" in reason["message"]) == ("base", True)
        wrong = credentials | {"password": "wrong-password"}
        reason = templates.failure("private", fromImage=image, fromImageRegistry=wrong)
        assert "wrong-password" not in reason["message"]
        build = templates.build("private", run("hello"), fromImage=image, fromImageRegistry=credentials)
    assert SECRET not in "".join(build.messages())
    log = data_dir.with_name(f"{data_dir.name}.log")
    places = [Path(folder, name) for folder, _, names in os.walk(data_dir) for name in names]
    assert not [path for path in (*places, log) if keeps(path, SECRET)]
    reason = templates.failure("private", fromImage="team/app", fromImageRegistry=credentials)
    assert "registry's name" in reason["message"]


def keeps(path: Path, text: str) -> bool:
    """Whether a regular file has it; one that the engine has removed meanwhile has not."""
    try:
        return path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
    except FileNotFoundError:
        return False


def test_what_is_not_there_is_said(templates: Templates, registry: Registry, musl: Layer, tmp_path: Path) -> None:
    assert "unknown" in templates.failure("absent", fromImage=f"{registry.address}/absent:1")["message"]
    layout = Layout(tmp_path / "layout")
    layout.index([layout.image([musl], architecture="mips")])
    image = registry.push_layout("foreign", layout)
    assert "mips" in templates.failure("absent", fromImage=image)["message"]
    assert "--image-map" in templates.failure("absent", fromImage="localhost:1/absent:1")["message"]


def test_an_image_needs_no_accounts(templates: Templates, registry: Registry, musl_root: Path) -> None:
    def bare(tar: tarfile.TarFile) -> None:
        file(tar, "bin", type=tarfile.DIRTYPE, mode=0o755)
        tar.add(musl_root / "bin/busybox", "bin/busybox")
        for name in ("sh", "id", "cat"):
            file(tar, f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox")

    image = registry.push("bare", layer(packed(bare, compress=False)))
    templates.build("bare", step("USER", "1234"), run("id -u > /tmp/id; id -g >> /tmp/id"), fromImage=image)
    with templates.box(templateID="bare") as box:
        assert box.sh("cat /tmp/id").stdout == b"1234\n1234\n"
        assert box.sh("cat /etc/passwd", headers={"authorization": "Basic cm9vdDo="}).stdout == (
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
        )
