"""What a template is made of, as its builder collects it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from grotte._proto import arguments
from grotte.errors import InvalidArgumentException

#: Where a template starts unless it says so.
BASE_IMAGE = "parallactic/base"
StepType: TypeAlias = Literal["COPY", "ENV", "RUN", "WORKDIR", "USER"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a template.

    Attributes:
        type: What is done.
        args: With what, as the wire has it.
        force: Although it was done before.
        force_upload: The files of a COPY are sent although they were sent before.
        resolve_symlinks: A COPY takes what links point at.
    """

    type: StepType
    args: tuple[str, ...]
    force: bool = False
    force_upload: bool | None = None
    resolve_symlinks: bool = False


@dataclass(slots=True)
class Recipe:
    """A template, as far as it is described.

    Attributes:
        context: The directory that COPY copies from.
        ignored: Patterns of what it never copies, besides those of its ``.dockerignore``.
        image: Where it starts, if that is an image.
        template: Where it starts, if that is a template.
        registry: Who may pull the image, as the wire has it.
        steps: What is done then.
        start_cmd: What runs in every sandbox.
        ready_cmd: What succeeds when that is ready.
        force: Nothing is taken from the cache.
        force_next: Nothing that follows is.
    """

    context: str
    ignored: list[str]
    image: str | None = BASE_IMAGE
    template: str | None = None
    registry: dict[str, str] | None = field(default=None, repr=False)
    steps: list[Step] = field(default_factory=list)
    start_cmd: str | None = None
    ready_cmd: str | None = None
    force: bool = False
    force_next: bool = False

    def summary(self) -> str:
        """What a representation says: steps and registries may hold what should not be shown."""
        start = f"template={self.template!r}" if self.image is None else f"image={self.image!r}"
        return f"{start}, steps={len(self.steps)}"

    def start_from(
        self, image: str | None, template: str | None = None, registry: dict[str, str] | None = None
    ) -> None:
        """Choose where it starts."""
        self.image, self.template, self.registry = image, template, registry
        self.force = self.force or self.force_next

    def add(self, kind: StepType, *args: str, force_upload: bool | None = None, resolve_symlinks: bool = False) -> None:
        """Add a step."""
        force = self.force_next or bool(force_upload)
        self.steps.append(Step(kind, args, force, force_upload, resolve_symlinks))


def context_path(src: object) -> str:
    """A path or pattern in a context.

    Raises:
        InvalidArgumentException: it is none, or leads out.
    """
    source = arguments.path(src, "src")
    drive = len(source) > 1 and source[1] == ":" and source[0].isalpha()
    if source.startswith(("/", "\\")) or drive:
        raise InvalidArgumentException(f"src must be relative to the context directory, not {source!r}")
    inside = posixpath.normpath(source)
    if inside == ".." or inside.startswith("../"):
        raise InvalidArgumentException(f"src must not lead out of the context directory, as {source!r} does")
    # a path that goes up and comes back is sent as what it means
    return inside if ".." in source.split("/") else source


def dockerfile_of(recipe: Recipe) -> str:
    """A Dockerfile that says the same.

    Raises:
        ValueError: it starts from a template.
    """
    if recipe.template is not None or recipe.image is None:
        raise ValueError("a template that starts from another template has no Dockerfile")
    lines = [f"FROM {recipe.image}"]
    for step in recipe.steps:
        match step.type:
            case "RUN":
                lines.append(f"RUN {step.args[0]}")
            case "COPY":
                lines.append(f"COPY {step.args[0]} {step.args[1]}")
            case "ENV":
                pairs = zip(step.args[::2], step.args[1::2], strict=True)
                lines.append("ENV " + " ".join(f"{name}={_env_value(value)}" for name, value in pairs))
            case _:
                lines.append(f"{step.type} {' '.join(step.args)}")
    if recipe.start_cmd:
        lines.append(f"ENTRYPOINT {recipe.start_cmd}")
    return "\n".join(lines) + "\n"


def _env_value(value: str) -> str:
    """A value as it is, or in quotes if it would be taken apart."""
    if value and not any(character in " \t\n'\"" for character in value):
        return value
    return '"' + value.replace('"', '\\"') + '"'
