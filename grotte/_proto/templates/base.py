"""Where a template starts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, TypeAlias

from grotte._proto import arguments
from grotte._proto.templates.builder import TemplateBuilder, TemplateFinal
from grotte._proto.templates.commands import StrPath, one_path
from grotte._proto.templates.dockerfile import read_dockerfile
from grotte._proto.templates.recipe import BASE_IMAGE, Recipe, dockerfile_of
from grotte.errors import InvalidArgumentException


class TemplateBase:
    """The start of a template's description: each ``from_…`` method leads to the builder.

    Example:
        ```python
        template = Template().from_image("ubuntu:22.04").run_cmd("apt-get update").set_workdir("/opt/work")
        ```
    """

    def __init__(
        self, file_context_path: StrPath | None = None, file_ignore_patterns: Sequence[str] | None = None
    ) -> None:
        """Nothing is read or sent yet.

        Args:
            file_context_path: The directory that `copy` copies from; default: that of the calling file.
            file_ignore_patterns: What is never copied, as lines of a ``.dockerignore``, which counts too.
        """
        context = _caller_directory(self) if file_context_path is None else one_path(file_context_path, "context")
        if isinstance(file_ignore_patterns, str):
            raise InvalidArgumentException("file_ignore_patterns must be a list of str, not a str")
        patterns = [arguments.text(line, "file_ignore_patterns", empty=True) for line in file_ignore_patterns or ()]
        self._recipe = Recipe(context, patterns)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._recipe.summary()})"

    def skip_cache(self) -> Self:
        """Do everything again, although it was done before."""
        self._recipe.force_next = True
        return self

    # -- images --------------------------------------------------------------------------------------------------------

    def from_image(self, image: str, username: str | None = None, password: str | None = None) -> TemplateBuilder:
        """Start from an image of a registry.

        Args:
            image: Its name, such as ``"ubuntu:24.04"`` or ``"registry.example.com/team/app@sha256:…"``.
            username: Who pulls it, if the registry asks.
            password: What for; given with `username` or not at all.

        Example:
            ```python
            Template().from_image("python:3.12-slim").run_cmd("pip install pandas")
            ```
        """
        image = arguments.identifier(image, "image")
        if bool(username) != bool(password):
            raise InvalidArgumentException("username and password are given together, or not at all")
        if not username or not password:
            return self._from(image)
        name = arguments.text(username, "username")
        return self._from(
            image, {"type": "registry", "username": name, "password": arguments.text(password, "password")}
        )

    def from_base_image(self) -> TemplateBuilder:
        """Start from the image of the template `base`."""
        return self._from(BASE_IMAGE)

    def from_debian_image(self, variant: str = "stable") -> TemplateBuilder:
        """Start from an image of Debian, such as ``"bookworm"``."""
        return self.from_image(f"debian:{variant}")

    def from_ubuntu_image(self, variant: str = "latest") -> TemplateBuilder:
        """Start from an image of Ubuntu, such as ``"24.04"``."""
        return self.from_image(f"ubuntu:{variant}")

    def from_python_image(self, version: str = "3") -> TemplateBuilder:
        """Start from an image of Python, such as ``"3.12"``."""
        return self.from_image(f"python:{version}")

    def from_node_image(self, variant: str = "lts") -> TemplateBuilder:
        """Start from an image of Node.js, such as ``"24"``."""
        return self.from_image(f"node:{variant}")

    def from_bun_image(self, variant: str = "latest") -> TemplateBuilder:
        """Start from an image of Bun."""
        return self.from_image(f"oven/bun:{variant}")

    def from_aws_registry(self, image: str, access_key_id: str, secret_access_key: str, region: str) -> TemplateBuilder:
        """Start from an image in the registry of an AWS account."""
        registry = {
            "type": "aws",
            "awsAccessKeyId": arguments.text(access_key_id, "access_key_id"),
            "awsSecretAccessKey": arguments.text(secret_access_key, "secret_access_key"),
            "awsRegion": arguments.text(region, "region"),
        }
        return self._from(arguments.identifier(image, "image"), registry)

    def from_gcp_registry(self, image: str, service_account_json: str | Mapping[str, object]) -> TemplateBuilder:
        """Start from an image in a registry of Google's cloud.

        Args:
            image: Its name.
            service_account_json: The account's key, or the path of a file with it, relative to the context directory.
        """
        registry = {"type": "gcp", "serviceAccountJson": self._service_account(service_account_json)}
        return self._from(arguments.identifier(image, "image"), registry)

    def _service_account(self, given: str | Mapping[str, object]) -> str:
        if isinstance(given, Mapping):
            return json.dumps(dict(given))
        text = arguments.text(given, "service_account_json")
        if text.lstrip().startswith("{"):
            return text
        return _content(Path(self._recipe.context, text))

    def _from(self, image: str, registry: dict[str, str] | None = None) -> TemplateBuilder:
        self._recipe.start_from(image, registry=registry)
        return TemplateBuilder(self._recipe)

    # -- other starts --------------------------------------------------------------------------------------------------

    def from_template(self, template: str) -> TemplateBuilder:
        """Start from another template.

        Args:
            template: Its name or id, with or without a tag.
        """
        self._recipe.start_from(None, arguments.identifier(template, "template"))
        return TemplateBuilder(self._recipe)

    def from_dockerfile(self, dockerfile_content_or_path: StrPath) -> TemplateBuilder:
        """Start from a Dockerfile: what it says is added to this template.

        One stage, with FROM, RUN, COPY and ADD of local files, ENV, ARG, WORKDIR, USER, ENTRYPOINT and CMD. The last
        two become the start command, which counts as ready after 20 seconds unless `set_ready_cmd` says otherwise;
        EXPOSE, LABEL and MAINTAINER change nothing.

        Args:
            dockerfile_content_or_path: Its text, or where it is.

        Raises:
            DockerfileSyntaxError: it says something else; the message has the line.

        Example:
            ```python
            Template().from_dockerfile("FROM python:3.12\\nRUN pip install numpy")
            ```
        """
        if isinstance(dockerfile_content_or_path, os.PathLike):
            text = _content(Path(one_path(dockerfile_content_or_path, "dockerfile")))
        else:
            text = arguments.text(dockerfile_content_or_path, "dockerfile_content_or_path")
            if len(text.split()) == 1 or ("\n" not in text and os.path.isfile(text)):
                text = _content(Path(text))
        # apart, so that one that is refused leaves nothing behind
        apart = Recipe(self._recipe.context, [], force_next=self._recipe.force_next)
        self._recipe.start_from(read_dockerfile(text, TemplateBuilder(apart)))
        self._recipe.steps += apart.steps
        self._recipe.start_cmd, self._recipe.ready_cmd = apart.start_cmd, apart.ready_cmd
        return TemplateBuilder(self._recipe)

    @staticmethod
    def to_dockerfile(template: TemplateClass) -> str:
        """A Dockerfile that says the same.

        Raises:
            ValueError: it starts from another template.
        """
        return dockerfile_of(recipe_of(template))


TemplateClass: TypeAlias = TemplateBase | TemplateBuilder | TemplateFinal


def recipe_of(template: object) -> Recipe:
    """What a template is made of.

    Raises:
        InvalidArgumentException: it is none.
    """
    if not isinstance(template, TemplateBase | TemplateBuilder | TemplateFinal):
        raise InvalidArgumentException(f"template must be a Template, not {type(template).__name__}")
    return template._recipe  # noqa: SLF001 - the three classes share it, and users do not need it


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentException(f"{path} cannot be read: {error}") from None


def _caller_directory(made: TemplateBase) -> str:
    """Where the code is that makes a template."""
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to one's caller that costs nothing
    while frame.f_back is not None and frame.f_locals.get("self") is made:
        frame = frame.f_back
    return os.path.dirname(os.path.abspath(frame.f_code.co_filename))
