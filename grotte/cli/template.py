"""``grotte template``: build templates, list and delete them, and begin a new one."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from grotte._proto.templates.base import TemplateBase, TemplateClass
from grotte._proto.templates.builder import TemplateBuilder, TemplateFinal
from grotte._proto.templates.logger import BuildLogger
from grotte._sync.template import CPUS, MEMORY_MB, Template
from grotte.errors import BuildException, InvalidArgumentException

if TYPE_CHECKING:
    from argparse import _SubParsersAction

#: What is looked for in a directory, in this order.
PYTHON_FILE, DOCKERFILE = "template.py", "Dockerfile"
FIRST = '''"""What sandboxes of this template start with; `grotte template build` builds it."""

from grotte import Template

template = (
    Template()
    .from_base_image()
    .set_envs({"GREETING": "hello"})
    .run_cmd("echo 'made to order' > ~/made")
    # .copy("app", "/opt/app/")  # files beside this one
    # .pip_install(["pandas"])
)
'''
#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "template",
        help="build, list and delete templates",
        description="Templates are what sandboxes start from.",
    )
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_build(actions)
    listing = actions.add_parser("list", help="list the templates of this account")
    listing.set_defaults(execute=show_list)
    removal = actions.add_parser("delete", help="delete templates with all their builds")
    removal.add_argument("names", nargs="+", metavar="NAME", help="a name or an id")
    removal.set_defaults(execute=delete)
    beginning = actions.add_parser("init", help=f"write a first {PYTHON_FILE}")
    beginning.add_argument("path", nargs="?", default=".", metavar="PATH", help="the directory (default: this one)")
    beginning.set_defaults(execute=begin)
    for action in (listing, removal):
        _add_place(action)


def _add_build(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "build",
        help="build a template",
        description=f"Build the template of PATH: a Dockerfile, or a Python file whose variable `template` is one; of "
        f"a directory, its {PYTHON_FILE} or its {DOCKERFILE}. COPY copies from the file's directory.",
    )
    parser.add_argument("path", nargs="?", default=".", metavar="PATH", help="default: this directory")
    parser.add_argument("--name", default=None, help="what it will be called, as NAME or NAME:TAG (default: as the "
                        "directory)")  # fmt: skip
    parser.add_argument("--tag", action="append", default=[], help="a tag more; may repeat")
    parser.add_argument("--cpus", type=int, default=CPUS, help="processors of its sandboxes (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=MEMORY_MB, metavar="MIB", help="memory of its sandboxes in MiB "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--no-cache", action="store_true", help="do every step again")
    parser.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    parser.set_defaults(execute=build)
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--api-url", default=None, metavar="URL", help='where sandboxes run; "local": this machine')


def build(options: argparse.Namespace) -> int:
    """Build a template; its log goes to the standard error, its id to the standard output."""
    file = _file_of(Path(options.path))
    try:
        info = Template.build(
            _load(file),
            options.name or _name_for(file.resolve().parent),
            tags=options.tag,
            cpu_count=options.cpus,
            memory_mb=options.memory,
            skip_cache=options.no_cache,
            on_build_logs=BuildLogger("warn" if options.quiet else "info", sys.stderr),
            api_url=options.api_url,
        )
    except BuildException as error:
        print(f"grotte: the build failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("grotte: interrupted; what was started is built to its end", file=sys.stderr)
        return INTERRUPTED
    print(info.template_id)
    return 0


def show_list(options: argparse.Namespace) -> int:
    """Print a table; only its head if there are none."""
    rows = [("ID", "NAMES", "CPUS", "MEMORY", "STATUS")]
    rows += [
        (found.template_id, ",".join(found.names), f"{found.cpu_count}", f"{found.memory_mb} MiB", found.build_status)
        for found in Template.list(api_url=options.api_url)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def delete(options: argparse.Namespace) -> int:
    """Delete them all; one that is missing is said, and does not keep the others."""
    status = 0
    for name in options.names:
        if not Template.delete(name, api_url=options.api_url):
            print(f"grotte: there is no template '{name}'", file=sys.stderr)
            status = 1
    return status


def begin(options: argparse.Namespace) -> int:
    """Write a first template; a file that is there stays as it is."""
    path = Path(options.path) / PYTHON_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(FIRST)
    except OSError as error:
        raise InvalidArgumentException(f"{path} cannot be written: {error.strerror}") from None
    print(f"{path} is written; build it with: grotte template build {path}")
    return 0


def _file_of(path: Path) -> Path:
    candidates = [path / PYTHON_FILE, path / DOCKERFILE] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise InvalidArgumentException(f"{looked}: no such file; `grotte template init` writes a first template")


def _load(file: Path) -> TemplateClass:
    if file.suffix != ".py":
        return Template(file.resolve().parent).from_dockerfile(file)
    found = runpy.run_path(str(file)).get("template")
    if not isinstance(found, TemplateBase | TemplateBuilder | TemplateFinal):
        raise InvalidArgumentException(f"{file} has no variable `template` that is a Template")
    return found


def _name_for(directory: Path) -> str:
    name = re.sub("[^a-z0-9_-]+", "-", directory.name.lower()).strip("-")
    if not name:
        raise InvalidArgumentException(f"{directory} is no name for a template: give one with --name")
    return name
