"""Images and contexts that want more than to be unpacked: refused, and nothing of them stays."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.templates.building import Templates, copy, packed
from tests.engine.templates.test_images import file
from tests.engine.wire import OTHER_KEY, check_error
from tests.support.engine import Engine
from tests.support.images import Layer, Layout, Registry, digest_of, layer, tar_of

Fill = Callable[[tarfile.TarFile], object]
OUT = "/tmp/written-by-a-hostile-image"
GIB = 1 << 30


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    file(tar, name, type=kind, linkname=target)


def below_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", "/tmp")
    file(tar, f"a/{OUT.rpartition('/')[2]}", b"x")


def over_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", OUT)
    file(tar, "a", type=tarfile.DIRTYPE)


def hard_over_link(tar: tarfile.TarFile) -> None:
    link(tar, "a", "/etc")
    link(tar, "b", "a/passwd", tarfile.LNKTYPE)


def sparse(tar: tarfile.TarFile) -> None:
    """A file of 100 GiB in an archive of a kilobyte."""
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(100 * GIB)}
    info.pax_headers["GNU.sparse.name"] = "sparse"
    info.size = 512
    tar.addfile(info, io.BytesIO(b"0\n" + bytes(510)))


ESCAPES: dict[str, tuple[Fill, str]] = {
    "absolute": (lambda tar: file(tar, OUT, b"x"), "leads out"),
    "dots": (lambda tar: file(tar, f"a/../../../../../..{OUT}", b"x"), "leads out"),
    "below-link": (below_link, "through a link"),
    "over-link": (over_link, "something else"),
    "hard-absolute": (lambda tar: link(tar, "a", "/etc/shadow", tarfile.LNKTYPE), "leads out"),
    "hard-dots": (lambda tar: link(tar, "a", "../../../etc/shadow", tarfile.LNKTYPE), "leads out"),
    "hard-unknown": (lambda tar: link(tar, "a", "etc/shadow", tarfile.LNKTYPE), "no file before it"),
    "hard-over-link": (hard_over_link, "no file before it"),
    "device": (lambda tar: file(tar, "sda", type=tarfile.BLKTYPE, devmajor=8), "neither file"),
    "whiteout-device": (lambda tar: file(tar, "etc/x", type=tarfile.CHRTYPE), "neither file"),
    "nul": (lambda tar: file(tar, "a" * 5000, b"x"), "no path"),
    "sparse": (sparse, "more than"),
}
WHITEOUTS: dict[str, tuple[Fill, str]] = {
    "whiteout-dots": (lambda tar: file(tar, "a/.wh..."), "whiteout"),
    "whiteout-dot": (lambda tar: file(tar, ".wh.."), "whiteout"),
    "whiteout-empty": (lambda tar: file(tar, ".wh."), "whiteout"),
    "whiteout-out": (lambda tar: file(tar, "../.wh.tmp"), "leads out"),
    "whiteout-link": (lambda tar: link(tar, ".wh.x", OUT), "whiteout"),
    "owner": (lambda tar: file(tar, "a", b"x", uid=2**31), "belongs to"),
}


def layers_in(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "host/layers").iterdir()}


@pytest.mark.parametrize("case", [*ESCAPES, *WHITEOUTS])
def test_a_hostile_layer_is_refused(
    templates: Templates, registry: Registry, data_dir: Path, musl_root: Path, case: str
) -> None:
    fill, words = (ESCAPES | WHITEOUTS)[case]
    before = layers_in(data_dir)
    image = registry.push(f"hostile:{case}", layer(packed(fill, compress=False)))
    reason = templates.failure("hostile", fromImage=image)
    assert reason["step"] == "base"
    assert "the image was refused: layer sha256:" in reason["message"]
    assert words in reason["message"]
    assert not Path(OUT).exists()
    assert layers_in(data_dir) <= before


@pytest.mark.parametrize("case", ESCAPES)
@pytest.mark.parametrize("compress", [True, False])
def test_a_hostile_context_is_refused(templates: Templates, data_dir: Path, case: str, compress: bool) -> None:
    fill, words = ESCAPES[case]
    digest = hashlib.sha256(case.encode()).hexdigest()
    url = offer(templates, digest)
    answer = templates.put(url, content=packed(fill, compress=compress))
    assert words in check_error(answer, 400)["message"]
    assert not list((data_dir / "contexts").glob(f"*{digest}"))
    assert not list((data_dir / "contexts").glob("*.part"))
    assert "not uploaded" in templates.failure("hostile", copy("a", "/x", digest=digest))["message"]


def offer(templates: Templates, digest: str = "f" * 64) -> str:
    build = templates.request_build("hostile")
    answer = templates.get(f"/templates/{build.template}/files/{digest}").json()
    assert answer["present"] is False
    return str(answer["url"])


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b\x08 broken", bytes(100)])
def test_what_is_no_archive_is_refused(templates: Templates, content: bytes) -> None:
    check_error(templates.put(offer(templates), content=content), 400)


def test_a_context_that_is_cut_off_is_refused(templates: Templates) -> None:
    whole = packed(lambda tar: file(tar, "a", bytes(100_000)))
    check_error(templates.put(offer(templates), content=whole[: len(whole) // 2]), 400)
    check_error(templates.put(offer(templates)[:-1] + "_", content=whole), 403)
    check_error(templates.get("/templates/hostile/files/short"), 400)
    check_error(templates.get(f"/templates/nobody/files/{'f' * 64}"), 404)


def zeros(size: int) -> bytes:
    """An archive of one file of zeros, compressed, without ever having it."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    packer = zlib.compressobj(9, wbits=31)
    pieces = [packer.compress(info.tobuf(tarfile.PAX_FORMAT))]
    block = bytes(1 << 20)
    pieces += [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.compress(bytes(1024)), packer.flush()])


def test_zeros_without_end_are_refused(templates: Templates, registry: Registry, data_dir: Path) -> None:
    before = layers_in(data_dir)
    bomb = zeros(2 * GIB)
    image = registry.push("zeros", Layer(bomb, "application/vnd.oci.image.layer.v1.tar+gzip", digest_of(b"")))
    assert "unpacks to more than 1024 MiB" in templates.failure("hostile", fromImage=image)["message"]
    assert layers_in(data_dir) <= before
    assert "more than 1024 MiB" in check_error(templates.put(offer(templates), content=bomb), 400)["message"]


def test_layers_that_are_not_what_the_image_says_are_refused(
    templates: Templates, registry: Registry, musl_root: Path
) -> None:
    tar = tar_of(musl_root)
    wrong = layer(tar)
    image = registry.push("wrong:diff", Layer(wrong.blob, wrong.media, digest_of(b"something else")))
    assert "its content has the digest" in templates.failure("hostile", fromImage=image)["message"]


def test_the_layers_of_others_cannot_be_had_by_their_names(
    templates: Templates, registry: Registry, builder: Engine
) -> None:
    # Door: an image that names a layer which the build of another key has brought here, and brings another one itself.
    private = layer(packed(lambda tar: file(tar, "private", b"of somebody else"), compress=False))
    image = registry.push("private", private)
    templates.build("theirs", fromImage=image)
    junk = layer(packed(lambda tar: file(tar, "junk", b"x"), compress=False))
    with Templates(builder.url, OTHER_KEY) as others:
        for envs in ((), ("ANY=thing",)):
            claims = registry.push("claims", Layer(junk.blob, junk.media, private.diff_id), envs=envs)
            assert "is not what its digest says" in others.failure("mine", fromImage=claims)["message"]
        others.build("honest", fromImage=image)


def test_a_registry_that_lies_is_found_out(templates: Templates, registry: Registry, tmp_path: Path) -> None:
    tar = packed(lambda tar: file(tar, "unique", b"x" * 1000), compress=False)
    layout = Layout(tmp_path / "layout")
    described = layer(tar)
    layout.index([layout.image([described])])
    image = registry.push_layout("wrong:blob", layout)
    digest = digest_of(described.blob).removeprefix("sha256:")
    stored = next((registry.room / "storage").rglob(f"{digest}/data"))
    stored.write_bytes(layer(packed(lambda tar: file(tar, "unique", b"y" * 1000), compress=False)).blob)
    message = templates.failure("hostile", fromImage=image)["message"]
    assert "igest" in message
