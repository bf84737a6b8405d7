"""The copy of the interpreter: what it is made of, and what is said if it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from grotte.engine.host import HostError, SandboxHost, SandboxSpec, runtime


@pytest.fixture
def needy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An interpreter that finds its library by the environment alone, as those of modules and of copies do."""
    place = "/usr/lib:/somewhere/of/its/own"
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" = {place} ] || exit 127\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapper))
    return place


async def test_an_interpreter_gets_the_way_to_its_library(
    needy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", needy)
    async with SandboxHost(tmp_path / "data") as host:
        guest = await host.launch(SandboxSpec("box"))
        await guest.kill()


def test_an_interpreter_that_does_not_run_is_told_in_few_words(needy: str, tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    with pytest.raises(HostError, match=r"python cannot be examined: it ended with status 127$"):
        runtime.build(tmp_path / "runtime", "/run/grotte/runtime")
