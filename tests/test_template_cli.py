"""``grotte template`` on a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from grotte import Template
from grotte.cli import main
from tests.support.engine import Engine


@pytest.fixture(autouse=True)
def at_the_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROTTE_API_URL", engine.url)
    monkeypatch.setenv("GROTTE_API_KEY", engine.api_key)


def test_from_init_to_delete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    room = tmp_path / "My First!"
    assert main(["template", "init", str(room)]) == 0
    assert main(["template", "init", str(room)]) == 1
    assert "cannot be written: File exists" in capsys.readouterr().err
    assert main(["template", "build", str(room), "--tag", "v1", "--cpus", "1"]) == 0
    shown = capsys.readouterr()
    template_id = shown.out.strip()
    assert "RUN echo 'made to order'" in shown.err
    assert "\x1b" not in shown.err
    assert [tag.tag for tag in Template.get_tags("my-first")] == ["v1"]
    assert main(["template", "list"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(template_id)]
    assert row.split() == [template_id, "my-first", "1", "1024", "MiB", "ready"]
    assert main(["template", "delete", "never-was", "my-first"]) == 1
    assert "no template 'never-was'" in capsys.readouterr().err
    assert not Template.exists("my-first")


def test_a_dockerfile_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN echo 'so sad'; exit 7\n")
    assert main(["template", "build", str(tmp_path), "--name", "sad", "--quiet", "--no-cache"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "the build failed: step 3" in shown.err
    assert "so sad" in shown.err
    assert main(["template", "delete", "sad"]) == 0


@pytest.mark.parametrize(
    ("content", "about"),
    [
        (None, "no such file"),
        ("template = 3", "no variable `template`"),
        ("from grotte import Template\ntemplate = Template().from_base_image().copy('missing', '/')", "nothing in"),
    ],
)
def test_what_cannot_be_built(
    tmp_path: Path, content: str | None, about: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "template.py").write_text(content)
    assert main(["template", "build", str(tmp_path), "--name", "wrong"]) == 1
    assert about in capsys.readouterr().err
    assert not Template.exists("wrong")
