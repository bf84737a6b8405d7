"""What the guest does by itself so that it starts quickly: JSON, encodings, bundles, and starting programs."""

from __future__ import annotations

import json
import marshal
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grotte.engine.host.runtime import STANDALONE
from grotte.engine.host.standalone import bundle, lean_encodings, notation, programs
from grotte.engine.host.standalone.workers import MOST, Workers

LONG_TO_IMPORT = {"contextlib", "enum", "json", "re", "selectors", "signal", "socket", "subprocess", "threading"}
LONG_TO_IMPORT |= {"os", "_collections_abc", "ctypes", "struct", "types", "typing"}
OF_FEW_SANDBOXES = {"elevations", "files", "filework", "stopping", "terminals", "usage", "watches"}
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
    unwanted = LONG_TO_IMPORT | {f"standalone.{name}" for name in OF_FEW_SANDBOXES}
    assert not set(found.split()) & unwanted


def test_a_bundle(tmp_path: Path) -> None:
    code = marshal.dumps(compile("answer = 42", "bundled", "exec"))
    packed = bundle.pack(b"first", {"bundled": (False, code)}, {"library": "lib/library.so"})
    (tmp_path / "bundle").write_bytes(packed)
    directory, file = os.open(tmp_path, os.O_PATH), os.open(tmp_path / "bundle", os.O_RDONLY)
    found = bundle.Bundle(directory, file, bundle.HEADER_SIZE + bundle.size_of_first(packed))
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")  # what is open is what counts
    spec = found.find_spec("bundled")
    assert spec is not None
    module = type(sys)("bundled")
    found.exec_module(module)
    assert module.answer == 42
    library = found.find_spec("library")
    assert library is not None
    assert library.origin == f"/proc/self/fd/{directory}/lib/library.so"
    assert found.find_spec("other") is None
    os.close(file)
    os.close(directory)


@pytest.mark.parametrize("name", ["utf_8", "utf8", "ascii", "us_ascii", "latin_1", "iso8859_1"])
@given(text=st.text(), data=st.binary())
def test_encodings_are_the_library_s(name: str, text: str, data: bytes) -> None:
    codec = lean_encodings.find(name)
    assert codec is not None
    for errors in ("ignore", "replace", "backslashreplace"):
        assert codec.encode(text, errors)[0] == text.encode(name, errors)
        assert codec.decode(data, errors)[0] == data.decode(name, errors)
        decoder = codec.incrementaldecoder(errors)
        pieces = [decoder.decode(bytes([byte])) for byte in data]
        assert "".join([*pieces, decoder.decode(b"", True)]) == data.decode(name, errors)
        assert codec.incrementalencoder(errors).encode(text) == text.encode(name, errors)


def test_an_encoding_that_there_is_not() -> None:
    assert lean_encodings.find("cp1252") is None


def test_an_interpreter_with_these_encodings(tmp_path: Path) -> None:
    """It starts, and its streams and files work."""
    (tmp_path / "encodings.py").write_text(Path(lean_encodings.__file__).read_text())
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); del sys.modules['encodings']; import encodings\n"
        "import io; print(io.TextIOWrapper(io.BytesIO('grün'.encode()), encoding='utf8').read(), encodings.__file__)"
    )
    shown = subprocess.run([sys.executable, "-I", "-S", "-X", "utf8", "-c", code], capture_output=True, check=True)
    assert shown.stdout.decode() == f"grün {tmp_path}/encodings.py\n"


def test_workers_come_when_they_are_needed() -> None:
    """One does all that comes one by one; while it is busy others come, but never too many."""
    begun, go_on, done = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
    ran: list[int] = []

    def work(job: dict[str, object]) -> None:
        ran.append(threading.get_ident())
        begun.release()
        if job["waits"]:
            go_on.wait(10)
        done.release()

    first: list[int] = []
    workers = Workers(lambda: first.append(threading.get_ident()), work)
    for _ in range(MOST + 3):
        workers.put({"waits": True})
    for _ in range(MOST):
        assert begun.acquire(timeout=10)
    assert not begun.acquire(timeout=0.05)
    go_on.set()
    for _ in range(MOST + 3):
        assert done.acquire(timeout=10)
    assert len(set(ran)) == MOST
    assert first[0] in ran


def test_a_signal_ends_no_worker() -> None:
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()
    done = threading.Semaphore(0)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    workers = Workers(lambda: begun.put(threading.get_ident()), lambda _: done.release())
    try:
        thread = begun.get(timeout=10)
        for _ in range(20):
            time.sleep(0.002)  # so that it waits for a job again
            signal.pthread_kill(thread, signal.SIGUSR1)
            workers.put({})
            assert done.acquire(timeout=10)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    ("program", "cwd", "named"),
    [("/no/such", "/", "/no/such"), ("/bin/true", "/no/place", "/no/place"), ("nothing-of-the-kind", "/", "nothing")],
)
def test_programs_that_cannot_be_started(program: str, cwd: str, named: str) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        programs.start([program], (0, 1, 2), cwd, {"PATH": "/bin"})
    assert str(refused.value.filename).startswith(named)
