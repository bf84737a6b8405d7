"""What the guest does by itself so that it starts quickly: JSON, bundles of modules, and starting programs."""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte.engine.host.runtime import STANDALONE
from grotte.engine.host.standalone import bundle, notation, programs

LONG_TO_IMPORT = ("contextlib", "enum", "json", "re", "selectors", "signal", "socket", "subprocess", "threading")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_notation_is_json(value: object) -> None:
    assert notation.loads(json.dumps(value).encode()) == value
    assert json.loads(notation.dumps(value)) == value


@pytest.mark.parametrize("text", [b"", b"{", b"[1] 2", b"NaN", b"nul", b"\xff", b'{"a":}'])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        notation.loads(text)


def test_the_guest_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {str(STANDALONE.parent)!r}); import standalone.guest; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(found.split()) & set(LONG_TO_IMPORT)


def test_a_bundle(tmp_path: Path) -> None:
    code = marshal.dumps(compile("answer = 42", "bundled", "exec"))
    (tmp_path / "bundle").write_bytes(bundle.pack({"bundled": (False, code)}, {}))
    found = bundle.Bundle(str(tmp_path / "bundle"))
    spec = found.find_spec("bundled")
    assert spec is not None
    module = type(sys)("bundled")
    found.exec_module(module)
    assert module.answer == 42
    assert found.find_spec("other") is None
    os.close(found._fd)


@pytest.mark.parametrize(
    ("program", "cwd", "named"),
    [("/no/such", "/", "/no/such"), ("/bin/true", "/no/place", "/no/place"), ("nothing-of-the-kind", "/", "nothing")],
)
def test_programs_that_cannot_be_started(program: str, cwd: str, named: str) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        programs.start([program], (0, 1, 2), cwd, {"PATH": "/bin"})
    assert str(refused.value.filename).startswith(named)
