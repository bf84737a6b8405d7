"""Write ``docs/reference/`` from the docstrings: ``python tools/reference.py [--check]``.

A page for each room of the public surface. Classes that exist twice have one entry, with the sync signatures, and each
example in both forms. Signatures stand in ``py`` blocks and examples in ``python`` blocks: the latter are run as tests.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent

import grotte
from grotte._dual import DualMethod

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
#: Page, title, and the modules whose names stand on it: the first prefix that fits decides.
PAGES = [
    ("sandbox", "Sandboxes", ("sandbox", "paginator")),
    ("commands", "Commands", ("command", "_aio")),
    ("terminals", "Terminals", ("pty",)),
    ("files", "Files", ("filesystem", "downloads", "uploads", "watch")),
    ("git", "Git", ("git",)),
    ("volumes", "Volumes", ("volume",)),
    ("templates", "Templates", ("template", "dockerfile", "ready")),
    ("fleets", "Fleets", ("fleet", "budget")),
    ("clients", "Clients and configuration", ("account", "config", "options", "calls", "volume_config")),
    ("signatures", "Signed URLs", ("signature",)),
    ("exceptions", "Exceptions", ("errors",)),
    ("results", "Arguments and results", ("",)),
]
#: What is on a public class, but not for its users; the tests of the surface leave it out, too.
INTERNAL = {
    "abandon",
    "add_callbacks",
    "belongs_to_call",
    "check_loop",
    "is_over",
    "piece",
    "open",
    "located",
    "override",
    "page_at",
}
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example")
WIDTH = 100


@dataclass
class Doc:
    """A docstring, taken apart."""

    text: str = ""
    sections: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, thing: object) -> Doc:
        text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
        pieces = re.split(rf"^({'|'.join(SECTIONS)}):\n", text, flags=re.MULTILINE)
        found = cls(pieces[0].strip())
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
            section, rest = split_section(body)
            found.sections[name] = section
            found.text = f"{found.text}\n\n{rest}".strip()
        return found

    def items(self, section: str) -> list[tuple[str, str]]:
        """The entries of a section: name and text."""
        found: list[tuple[str, str]] = []
        for line in self.sections.get(section, "").splitlines():
            if match := re.match(r"(\*{0,2}\w+):\s+(.*)", line):
                found.append((match[1], match[2]))
            elif found and line.strip():
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        return found


def split_section(body: str) -> tuple[str, str]:
    """The indented lines of a section, and what stands behind it."""
    lines = body.splitlines()
    end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return dedent("\n".join(lines[:end])).strip(), "\n".join(lines[end:]).strip()


class Reference:
    """All pages."""

    def __init__(self) -> None:
        self._homes = {name: home_of(name) for name in grotte.__all__ if name != "__version__"}
        self._page_of = {name: page_of(home) for name, home in self._homes.items()}

    def pages(self) -> dict[str, str]:
        """The text of each file."""
        found = {}
        for page, title, _ in PAGES:
            names = [name for name in self._page_of if self._page_of[name] == page and not self._is_twin(name)]
            if names:
                entries = [entry for name in sorted(names, key=self._order) for entry in self._entry(name)]
                found[f"{page}.md"] = "\n\n".join([f"# {title}", *entries]) + "\n"
        found["README.md"] = self._index(found)
        return found

    def _index(self, pages: dict[str, str]) -> str:
        lines = ["# API reference", "Written from the docstrings; every example is a test.", ""]
        for page, title, _ in PAGES:
            if f"{page}.md" in pages:
                names = re.findall(r"^## (.+)$", pages[f"{page}.md"], re.MULTILINE)
                links = ", ".join(f"[{name}]({page}.md#{anchor(name)})" for name in names)
                lines.append(f"- [{title}]({page}.md): {links}")
        return "\n".join(lines).replace("\n", "\n\n", 1) + "\n"

    def _is_twin(self, name: str) -> bool:
        return name.startswith("Async") and name.removeprefix("Async") in self._homes

    def _order(self, name: str) -> tuple[int, str]:
        """Classes with methods first, in the order of their files."""
        thing = getattr(grotte, name)
        return (0 if inspect.isclass(thing) and "._sync." in thing.__module__ else 1, name.lower())

    def _entry(self, name: str) -> Iterator[str]:
        thing = getattr(grotte, name)
        twin = getattr(grotte, f"Async{name}", None)
        yield f"## {name}"
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            yield f"```py\n{name} = {plain(thing)}\n```"
            return
        doc = Doc.of(thing)
        if twin is not None:
            yield f"`Async{name}` is the same for asyncio and trio: `await` its calls."
        yield from self._body(name, thing, twin)
        if inspect.isclass(thing):
            if not doc.items("Attributes"):
                yield from fields_of(thing)
            for member in methods_of(thing):
                yield f"### {name}.{member}"
                yield from self._method(thing, twin, member)

    def _method(self, kind: type, twin: type | None, name: str) -> Iterator[str]:
        member = inspect.getattr_static(kind, name)
        other = (
            None if twin is None else inspect.getattr_static(twin, name, inspect.getattr_static(twin, f"a{name}", None))
        )
        if isinstance(member, property):
            yield f"```py\n{name}: {annotation(member.fget, 'return')}\n```"
            yield self._linked(Doc.of(member).text)
        elif isinstance(member, DualMethod):
            yield from self._body(name, member.on_instance, getattr(other, "on_instance", None), member)
        else:
            function = getattr(member, "__func__", member)
            yield from self._body(name, function, getattr(other, "__func__", other), member)

    def _body(self, name: str, thing: object, twin: object, member: object = None) -> Iterator[str]:
        """Signature, text, tables and examples of a class, function or method."""
        doc = Doc.of(thing)
        if inspect.isfunction(thing):
            yield "```py\n" + "\n".join(signatures(name, thing, member)) + "\n```"
        yield self._linked(doc.text)
        for section in ("Args", "Attributes", "Raises"):
            if items := doc.items(section):
                title = {"Args": "Arguments"}.get(section, section)
                yield f"**{title}**"
                yield "\n".join(f"- `{item}`: {self._linked(text)}" for item, text in items)
        for section in ("Returns", "Yields"):
            if section in doc.sections:
                yield f"**{section}**"
                yield self._linked(" ".join(doc.sections[section].split()))
        examples = [doc.sections.get("Example", ""), Doc.of(twin).sections.get("Example", "") if twin else ""]
        yield from dict.fromkeys(filter(None, examples))

    def _linked(self, text: str) -> str:
        """The same with links from names in code type to their entries."""

        def link(match: re.Match[str]) -> str:
            name = match[1]
            target = name.removeprefix("Async") if self._is_twin(name) else name
            page = self._page_of.get(target)
            return match[0] if page is None else f"[`{name}`]({page}.md#{target.lower()})"

        pieces = re.split(r"(```.*?```)", text, flags=re.DOTALL)
        return "".join(p if p.startswith("```") else re.sub(r"(?<![`\[])`(\w+)`(?!`)", link, p) for p in pieces)


def home_of(name: str) -> str:
    return grotte._HOME_OF[name]  # noqa: SLF001 - where a name is defined is said nowhere else


def page_of(home: str) -> str:
    module = home.split(".", 1)[1] if "." in home else home.lstrip("_")
    return next(page for page, _, prefixes in PAGES if module.startswith(prefixes))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def plain(value: object) -> str:
    """A constant or an alias, without the names of modules."""
    text = value.__name__ if isinstance(value, type) else repr(value)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=\w)", "", text)


def annotation(function: object, name: str) -> str:
    return str(getattr(function, "__annotations__", {}).get(name, "object"))


def methods_of(kind: type) -> list[str]:
    """The public members that the package defines itself, in the order of the source."""
    found: dict[str, None] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith("grotte") or dataclasses.is_dataclass(base) or issubclass(base, enum.Enum):
            continue
        for name, member in vars(base).items():
            called = isinstance(member, property | classmethod | staticmethod | DualMethod) or inspect.isfunction(
                member
            )
            if called and not name.startswith("_") and name not in INTERNAL:
                found[name] = None
    return [] if issubclass(kind, BaseException) else list(found)


def fields_of(kind: type) -> Iterator[str]:
    """What a class holds, where its docstring does not say."""
    if issubclass(kind, enum.Enum):
        yield "\n".join(f"- `{member.name}`: `{member.value!r}`" for member in kind)
    elif dataclasses.is_dataclass(kind):
        yield "\n".join(f"- `{one.name}`: `{one.type}`" for one in dataclasses.fields(kind))


def signatures(name: str, function: Callable[..., object], member: object) -> Iterator[str]:
    """How it is called: on a handle, and on the class where that works, too."""
    prefix = "@classmethod\n" if isinstance(member, classmethod) else ""
    yield prefix + signature(name, function)
    if isinstance(member, DualMethod):
        on_class = getattr(member.on_class, "__func__", member.on_class)
        yield "\n# on the class, for any sandbox\n@classmethod\n" + signature(name, on_class)


def signature(name: str, function: Callable[..., object]) -> str:
    found = inspect.signature(inspect.unwrap(function))
    pieces: list[str] = []
    keyword_only = False
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            pieces.append("*")
            keyword_only = True
        pieces.append(str(parameter).replace("'", "", 2) if isinstance(parameter.annotation, str) else str(parameter))
    returns = str(found.return_annotation)
    line = f"def {name}({', '.join(pieces)}) -> {returns}"
    if len(line) <= WIDTH:
        return line
    return f"def {name}(\n" + indent("".join(f"{piece},\n" for piece in pieces), "    ") + f") -> {returns}"


def main(arguments: list[str]) -> int:
    fresh = Reference().pages()
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    if "--check" in arguments:
        print(*(f"docs/reference/{name} is stale: run `nox -s generate`" for name in stale), sep="\n", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in fresh:
            (FOLDER / name).write_text(fresh[name])
        else:
            (FOLDER / name).unlink()
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
