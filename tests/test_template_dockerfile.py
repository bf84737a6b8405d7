"""What Dockerfiles mean, and where those that mean nothing go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grotte import DockerfileSyntaxError, InvalidArgumentException, Template
from grotte._proto.templates.dockerfile_lines import expanded

START = [["USER", "root"], ["WORKDIR", "/"]]
END = [["USER", "user"], ["WORKDIR", "/home/user"]]


def parsed(text: str, tmp_path: Path | None = None) -> dict[str, Any]:
    found = json.loads(Template.to_json(Template(tmp_path).from_dockerfile(text)))
    assert isinstance(found, dict)
    return found


def steps_of(text: str, tmp_path: Path | None = None) -> list[list[str]]:
    """The steps between what every Dockerfile begins and ends with."""
    steps = parsed("FROM base\n" + text, tmp_path)["steps"]
    assert isinstance(steps, list)
    found = [[step["type"], *step["args"]] for step in steps]
    assert found[:2] == START
    return [step for step in found[2:] if step not in END]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("RUN make", [["RUN", "make"]]),
        ("run  make  all ", [["RUN", "make  all"]]),
        ('RUN ["echo", "a b"]', [["RUN", "echo 'a b'"]]),
        ("RUN [ -f x ]", [["RUN", "[ -f x ]"]]),
        ("RUN a \\\n  && b \\\n# in between\n\n  && c", [["RUN", "a   && b   && c"]]),
        ("RUN echo $((1<<2)) '<<EOF'", [["RUN", "echo $((1<<2)) '<<EOF'"]]),
        ("RUN <<EOF\na\nb\nEOF\nRUN c", [["RUN", "a\nb"], ["RUN", "c"]]),
        ("RUN <<-'X'\n\ta\n\tX", [["RUN", "a"]]),
        (
            "RUN python3 <<EOF > out\n# no comment\nEOF",
            [["RUN", "python3 <<EOF > out\n# no comment\nEOF\n"]],
        ),
        ("RUN cat <<A - <<B\n1\nA\n2\nB", [["RUN", "cat <<A - <<B\n1\nA\n2\nB\n"]]),
        ("ENV A=1 B=\"x y\" C='$A' D=a\\ b", [["ENV", "A", "1", "B", "x y", "C", r"\$A", "D", "a b"]]),
        (r'ENV E="\$A\""', [["ENV", "E", r'\$A"']]),
        ("ENV OLD a  style", [["ENV", "OLD", "a  style"]]),
        ("ENV P=/x:$P Q=${Q:-a b}", [["ENV", "P", "/x:$P", "Q", "${Q:-a b}"]]),
        ("ENV EMPTY=", [["ENV", "EMPTY", ""]]),
        ("ARG A=1 B\nUSER u$A$B", [["ENV", "A", "1"], ["USER", "u1"]]),
        ("WORKDIR \"/a b\"\nUSER me", [["WORKDIR", "/a b"], ["USER", "me"]]),
        ("\\\n\nRUN make", [["RUN", "make"]]),
        ("# comment\nEXPOSE 80\nLABEL a=b\nMAINTAINER me", []),
    ],
)  # fmt: skip
def test_instructions(text: str, steps: list[list[str]]) -> None:
    assert steps_of(text) == steps


def test_user_and_workdir_are_those_of_sandboxes_unless_they_are_set() -> None:
    assert [step["type"] for step in parsed("FROM base")["steps"]] == ["USER", "WORKDIR"] * 2
    last = parsed("FROM base\nUSER me\nWORKDIR /x")["steps"]
    assert [step["args"] for step in last] == [["root"], ["/"], ["me"], ["/x"]]


def test_copies(tmp_path: Path) -> None:
    for name in ("a", "b", "c d"):
        (tmp_path / name).touch()
    text = 'ENV N=a\nCOPY $N /b ./\nCOPY --chown=u:g --chmod=755 --link ["c d", "/x"]\nADD . /all'
    assert steps_of(text, tmp_path)[1:] == [
        ["COPY", "a", "./", "", ""],
        ["COPY", "b", "./", "", ""],
        ["COPY", "c d", "/x", "u:g", "0755"],
        ["COPY", ".", "/all", "", ""],
    ]


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("FROM python:3.12", "python:3.12"),
        ("\ufeff# syntax=docker/dockerfile:1\nFROM node AS app", "node"),
        ('ARG V=3\nARG I="python:${V}"\nFROM $I', "python:3"),
        ("ARG V\nFROM python:${V:-4}", "python:4"),
    ],
)
def test_images(text: str, image: str) -> None:
    assert parsed(text)["fromImage"] == image


def test_an_argument_from_before_the_image_is_known_when_it_is_named() -> None:
    assert parsed("ARG V=3\nFROM i\nARG V\nUSER u$V")["steps"][2:4] == [
        {"type": "ENV", "args": ["V", "3"], "force": False},
        {"type": "USER", "args": ["u3"], "force": False},
    ]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("CMD serve --all", "serve --all"),
        ('CMD ["serve", "a b"]', "serve 'a b'"),
        ("ENTRYPOINT serve\nCMD ignored", "serve"),
        ('ENTRYPOINT ["serve"]\nCMD ["--port", "1"]', "serve --port 1"),
        ('ENTRYPOINT ["serve"]\nCMD a b', "serve /bin/sh -c 'a b'"),
        ("CMD first\nCMD second", "second"),
    ],
)
def test_start_commands(text: str, command: str) -> None:
    found = parsed(f"FROM base\n{text}")
    assert (found["startCmd"], found["readyCmd"]) == (command, "sleep 20")


@pytest.mark.parametrize(
    ("text", "line", "about"),
    [
        ("FROM a\nFROM b", 2, "several stages"),
        ("RUN x", 1, "before FROM"),
        ("FROM scratch", 1, "scratch"),
        ("FROM --platform=linux/arm64 a", 1, "--platform"),
        ("FROM a b c", 1, "AS"),
        ("FROM a\n\nRUN --mount=type=cache,target=/x y", 3, "--mount"),
        ("FROM a\nRUN x \\\n y\nHEALTHCHECK CMD x", 4, "HEALTHCHECK"),
        ("FROM a\nVOLUME /x", 2, "VOLUME"),
        ("FROM a\nSHELL [\"bash\"]", 2, "SHELL"),
        ("FROM a\nONBUILD RUN x", 2, "ONBUILD"),
        ("FROM a\nRUNN x", 2, "RUNN"),
        ("FROM a\n<<<<<<< HEAD", 2, "no instruction"),
        ("FROM a\nRUN", 2, "argument"),
        ("FROM a\nRUN <<EOF\nx", 2, "no end"),
        ("FROM a\nRUN <<EOF\n#!/bin/python\nEOF", 2, "interpreter"),
        ("FROM a\nCOPY <<EOF /x\nEOF", 2, "heredoc"),
        ("FROM a\nCOPY --from=b /x /y", 2, "--from"),
        ("FROM a\nCOPY x", 2, "destination"),
        ("FROM a\nCOPY x y z", 2, "slash"),
        ("FROM a\nCOPY ../x /", 2, "context"),
        ("FROM a\nCOPY --chmod=u+x x /", 2, "octal"),
        ("FROM a\nADD https://example.com/x /", 2, "URL"),
        ("FROM a\nADD git@example.com:x.git /", 2, "repository"),
        ("FROM a\nADD x.tar.gz /", 2, "archive"),
        ("FROM a\nENV A", 2, "no value"),
        ("FROM a\nENV A=1 B", 2, "NAME=VALUE"),
        ("FROM a\nENV A='x", 2, "quote"),
        (f"FROM a\nENV A={'x' * 70_000}", 2, "longer"),
        ("# escape=`\nFROM a", 1, "escape"),
    ],
)  # fmt: skip
def test_what_is_refused_with_its_line(text: str, line: int, about: str) -> None:
    template = Template()
    with pytest.raises(DockerfileSyntaxError, match=f"line {line}: .*{about}") as raised:
        template.from_dockerfile(text)
    assert raised.value.line == line
    assert isinstance(raised.value, InvalidArgumentException)
    assert json.loads(Template.to_json(template))["steps"] == []


def test_a_dockerfile_without_an_image() -> None:
    with pytest.raises(DockerfileSyntaxError, match="no FROM"):
        Template().from_dockerfile("# nothing\n")


def test_a_dockerfile_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "My Dockerfile"
    path.write_text("FROM python:3\nRUN make")
    for given in (path, str(path)):
        assert json.loads(Template.to_json(Template().from_dockerfile(given)))["fromImage"] == "python:3"


def test_variables() -> None:
    known = {"A": "a", "EMPTY": ""}
    assert expanded(r"$A ${A} \$A \\ ${EMPTY:-x} ${A:+y}${EMPTY:+z} $NONE.", known) == r"a a $A \ x y ."
