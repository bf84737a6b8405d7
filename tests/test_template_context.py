"""Which files a COPY sends, under which hash, in which archive."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from grotte import FileUploadException, InvalidArgumentException
from grotte._proto.templates.ignoring import Ignored, ignore_lines, pattern
from grotte._proto.templates.recipe import Recipe, Step
from grotte._sync.template_context import Bundle, bundle_of, packed


def bundle(root: Path, source: str, ignored: Sequence[str] = (), *, follow: bool = False, target: str = "/") -> Bundle:
    return bundle_of(Recipe(str(root), list(ignored)), Step("COPY", (source, target, "", ""), resolve_symlinks=follow))


def names(root: Path, source: str, *ignored: str) -> list[str]:
    return [entry.name for entry in bundle(root, source, ignored).entries]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("app/main.py", "app/data/big.bin", "app/data/small.txt", "README.md", "secrets/key", ".env"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("README.md", ["README.md"]),
        ("./app/data/", ["app/data", "app/data/big.bin", "app/data/small.txt"]),
        ("app/*.py", ["app/main.py"]),
        ("app/d*", ["app/data", "app/data/big.bin", "app/data/small.txt"]),
        ("**/*.txt", ["app/data/small.txt"]),
        (".e?v", [".env"]),
        ("[!A]EADME.md", ["README.md"]),
        ("[^R]EADME.md", None),
        ("[A-R]EADME.md", ["README.md"]),
        ("missing", None),
    ],
)
def test_what_a_pattern_finds(root: Path, source: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(InvalidArgumentException, match="nothing in"):
            names(root, source)
    else:
        assert names(root, source) == found


def test_what_is_ignored(root: Path) -> None:
    (root / ".dockerignore").write_text("\ufeff# private\n/secrets\n\n.*\n  **/*.bin  \n")
    assert names(root, ".") == ["README.md", "app", "app/data", "app/data/small.txt", "app/main.py"]
    assert names(root, ".", "app", "!app/main.py") == ["README.md", "app/main.py"]
    with pytest.raises(InvalidArgumentException, match="ignored"):
        names(root, "secrets/key")


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.md"], "a.md", True),
        (["*.md"], "x/a.md", False),
        (["**/*.md"], "a.md", True),
        (["**/*.md"], "x/y/a.md", True),
        (["x"], "x/y/a.md", True),
        (["x/"], "x/a", True),
        (["x", "!x/a"], "x/a", False),
        (["!x/a", "x"], "x/a", True),
        (["**", "!keep"], "keep/this", False),
        (["a?c"], "a/c", False),
        (["\\*"], "x", False),
        (["\\*"], "*", True),
        (["a.b"], "axb", False),
        (["[a-c]x"], "bx", True),
        (["[a-c]x"], "-x", False),
        (["[a\\-c]x"], "-x", True),
        (["[[&&~~||]x"], "&x", True),
        (["[^a]x"], "ax", False),
        (["", "!", " "], "x", False),
    ],
)
def test_patterns(lines: list[str], path: str, ignored: bool) -> None:
    assert (path in Ignored(lines)) is ignored


def test_patterns_that_are_none() -> None:
    for text in ("[a", "[z-a]"):
        with pytest.raises(InvalidArgumentException, match="not a pattern"):
            pattern(text)
    assert ignore_lines("#a\n\n b \n") == ["b"]


def test_the_hash_is_of_names_modes_and_contents(root: Path) -> None:
    def digest() -> str:
        return bundle(root, "app").digest

    seen = [digest()]
    os.utime(root / "app/main.py", (1, 1))
    (root / "README.md").write_text("outside")
    assert digest() == seen[0]
    for change in (
        lambda: (root / "app/main.py").write_text("other"),
        lambda: (root / "app/main.py").chmod(0o700),
        lambda: (root / "app/main.py").rename(root / "app/start.py"),
        lambda: (root / "app/link").symlink_to("start.py"),
        lambda: (root / "app/empty").mkdir(),
    ):
        change()
        seen.append(digest())
    assert len(set(seen)) == len(seen)
    assert bundle(root, "app", target="/else").digest not in seen


def unpacked(found: Bundle) -> dict[str, tarfile.TarInfo]:
    with packed(found) as (archive, size):
        assert os.fstat(archive.fileno()).st_size == size
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            return {member.name: member for member in tar}


def test_the_archive_keeps_links_and_modes(root: Path) -> None:
    (root / "app/main.py").chmod(0o751)
    (root / "app/link").symlink_to("/etc/passwd")
    os.mkfifo(root / "app/pipe")
    members = unpacked(bundle(root, "app"))
    assert sorted(members) == ["app", "app/data", "app/data/big.bin", "app/data/small.txt", "app/link", "app/main.py"]
    assert members["app"].isdir()
    assert members["app/main.py"].mode == 0o751
    assert members["app/link"].linkname == "/etc/passwd"


def test_links_are_followed_when_asked_but_not_out_of_the_context(root: Path) -> None:
    (root / "link").symlink_to("app/main.py")
    (root / "dangling").symlink_to("nowhere")
    followed = unpacked(bundle(root, "[ld]*", follow=True))
    assert followed["link"].isreg()
    assert followed["link"].size == len("app/main.py")
    assert followed["dangling"].issym()
    (root / "out").symlink_to("/etc")
    (root / "loop").symlink_to(".")
    assert unpacked(bundle(root, "out"))["out"].issym()
    for source, follow, about in (("out", True, "out of"), ("out/passwd", False, "out of"), ("loop", True, "link to")):
        with pytest.raises(InvalidArgumentException, match=about):
            bundle(root, source, follow=follow)


def test_a_file_that_changes_meanwhile_is_not_sent(root: Path) -> None:
    found = bundle(root, "README.md")
    (root / "README.md").write_text("")
    with pytest.raises(FileUploadException, match=r"README\.md became shorter"), packed(found):
        pytest.fail("it was packed")
    (root / "README.md").unlink()
    with pytest.raises(FileUploadException, match="No such file"), packed(found):
        pytest.fail("it was packed")
