"""What `doctor` says, and what the engine says when something is missing."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from grotte.engine.host import Check, HostError, SandboxHost, SandboxSpec, diagnose, explain, kernel, seccomp
from grotte.errors import EngineUnavailableException


def test_every_layer_is_named(tmp_path: Path) -> None:
    checks = {check.name: check for check in diagnose(tmp_path)}
    assert set(checks) == {
        "kernel", "data directory", "bubblewrap", "user namespaces", "user ids", "overlayfs", "seccomp",
        "limit: memory", "limit: pids", "limit: cpu", "limit: disk", "pause", "metrics", "owners", "network",
        "attributes", "template base", "packages",
    }  # fmt: skip
    assert all(check.remedy for check in checks.values() if check.status != "ok")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("system", "release", "reason"),
    [
        ("Linux", "5.11.0-rc1", ""),
        ("Linux", "6.1.0-56-cloud-amd64", ""),
        ("Linux", "5.10.0-46-amd64", "Linux 5.10.0-46-amd64 is too old; use Linux 5.11 or newer"),
        ("Linux", "4.19", "Linux 4.19 is too old; use Linux 5.11 or newer"),
        ("Darwin", "24.1.0", "Darwin has no sandboxes of this kind; use Linux"),
    ],
)
def test_kernels(system: str, release: str, reason: str) -> None:
    assert kernel.why_not(system, release) == reason


def test_the_reason_why_there_is_no_overlay_is_said(tmp_path: Path) -> None:
    place = tmp_path / "a,b"  # where the options of a mount come apart
    place.mkdir()
    check = next(check for check in diagnose(place) if check.name == "overlayfs")
    assert (check.status, "mount overlay" in check.detail) == ("missing", True)
    assert list(place.iterdir()) == []


def test_explain_names_the_remedy() -> None:
    text = explain([Check("a", "ok", "fine"), Check("b", "missing", "absent", "install b")])
    assert text == "b: absent; install b"


@pytest.mark.parametrize("below", ["", "not/there/yet"])
def test_a_data_directory_is_tried_where_it_will_be(tmp_path: Path, below: str) -> None:
    check = next(check for check in diagnose(tmp_path / below) if check.name == "data directory")
    assert (check.status, check.detail.partition(",")[0]) == ("ok", str(tmp_path / below))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/below", "/proc/none"])
def test_a_data_directory_that_cannot_be_is_told(place: str) -> None:
    checks = {check.name: check for check in diagnose(Path(place))}
    assert checks["data directory"].status == "missing"
    assert "--data-dir" in checks["data directory"].remedy
    assert checks["overlayfs"].status == "ok"


@pytest.mark.parametrize("script", ["exit 1", "exit 0", "echo bubblewrap 0.3.1"])
def test_a_bubblewrap_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = next(check for check in diagnose() if check.name == "bubblewrap")
    assert check.status == "missing"
    assert "too old" in check.detail if "echo" in script else "does not work" in check.detail


async def test_no_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailableException, match="apt-get install bubblewrap"):
        async with SandboxHost(tmp_path / "data"):
            pass
    assert next(check for check in diagnose() if check.name == "bubblewrap").status == "missing"


def test_no_pasta(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = next(check for check in diagnose() if check.name == "network")
    assert check.status == "degraded"
    assert check.detail == "no internet access inside sandboxes: pasta is not installed"
    assert "passt" in check.remedy


async def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineUnavailableException, match="cannot be used"):
        async with SandboxHost(tmp_path / "file" / "data"):
            pass


async def test_a_broken_bubblewrap_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(shutil.which("false") or "", tmp_path / "bwrap")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with SandboxHost(tmp_path / "data") as host:
        with pytest.raises(HostError, match="it ended at once"):
            await host.launch(SandboxSpec("x"))
        assert list((tmp_path / "data" / "host" / "sandboxes").iterdir()) == []


async def test_why_a_launch_failed(host: SandboxHost) -> None:
    with pytest.raises(HostError, match="mount overlay"):
        await host.launch(SandboxSpec("x", layers=(host.data_dir / "no-such-layer",)))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_is_a_program_that_ends(machine: str) -> None:
    program = seccomp.build(machine)
    assert len(program) % 8 == 0
    code = [struct.unpack_from("<HBBI", program, offset) for offset in range(0, len(program), 8)]
    for index, (operation, then, otherwise, _) in enumerate(code):
        if operation & 0x07 == 0x05:  # a jump goes forward and stays inside
            assert index + 1 + max(then, otherwise) < len(code)
    assert code[-1][0] == seccomp.RETURN


def test_unknown_machine_has_no_filter() -> None:
    with pytest.raises(KeyError):
        seccomp.build("pdp11")
