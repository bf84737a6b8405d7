"""Templates: described here, built where sandboxes run."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Unpack

import msgspec

from grotte._core._aio import OutputHandler
from grotte._core.template_api import AsyncTemplatePlane
from grotte._core.template_build import MAX_CPUS, MAX_MEMORY_MB, AsyncBuild, build_name, tag_list
from grotte._core.template_context import bundle_of
from grotte._proto import arguments
from grotte._proto.templates import wire
from grotte._proto.templates.base import TemplateBase, TemplateClass, recipe_of
from grotte._proto.templates.commands import flag
from grotte._proto.templates.results import (
    BuildInfo,
    LogEntry,
    TemplateBuildStatusResponse,
    TemplateInfo,
    TemplateTag,
    TemplateTagInfo,
)
from grotte.config import ApiParams, Bound
from grotte.errors import InvalidArgumentException

CPUS, MEMORY_MB = 2, 1024


class AsyncTemplate(TemplateBase, Bound):
    """A template: what sandboxes start from. Described by the methods of its builder, then built.

    Example:
        ```python
        template = (
            AsyncTemplate()
            .from_base_image()
            .run_cmd("echo 'made to order' > ~/made")
            .set_envs({"STAGE": "test"})
        )
        info = await AsyncTemplate.build(template, "made-to-order")
        async with await AsyncSandbox.create("made-to-order") as sandbox:
            print((await sandbox.commands.run("cat ~/made; echo $STAGE")).stdout)
        ```
    """

    @classmethod
    async def build(
        cls,
        template: TemplateClass,
        name: str | None = None,
        *,
        alias: str | None = None,
        tags: Sequence[str] | None = None,
        cpu_count: int = CPUS,
        memory_mb: int = MEMORY_MB,
        skip_cache: bool = False,
        on_build_logs: OutputHandler[LogEntry] | None = None,
        **options: Unpack[ApiParams],
    ) -> BuildInfo:
        """Build a template, and wait until sandboxes can start from it.

        Args:
            template: What it is made of.
            name: What it will be called, with or without a tag: ``"name"`` or ``"name:tag"``.
            alias: The same under its former name.
            tags: More tags for this build.
            cpu_count: How many processors its sandboxes will have.
            memory_mb: How much memory they will have, in MiB.
            skip_cache: Do every step again, although it was done before.
            on_build_logs: Called with each line of the log as it comes; see `default_build_logger`.
            **options: Where, and with which key; see `ApiParams`.

        Raises:
            BuildException: a step failed; the message says which, with its output.
            FileUploadException: a file could not be sent.

        Example:
            ```python
            template = AsyncTemplate().from_base_image().run_cmd("date > ~/built")
            info = await AsyncTemplate.build(template, "dated:v1", on_build_logs=default_build_logger())
            print(info.template_id)
            ```
        """
        build = _new_build(template, build_name(name, alias), tags, cpu_count, memory_mb, skip_cache, on_build_logs)
        return await build.run(await AsyncTemplatePlane.at(cls._configured(options)))

    @classmethod
    async def build_in_background(
        cls,
        template: TemplateClass,
        name: str | None = None,
        *,
        alias: str | None = None,
        tags: Sequence[str] | None = None,
        cpu_count: int = CPUS,
        memory_mb: int = MEMORY_MB,
        skip_cache: bool = False,
        on_build_logs: OutputHandler[LogEntry] | None = None,
        **options: Unpack[ApiParams],
    ) -> BuildInfo:
        """Start to build a template, once its files are sent; `get_build_status` says how far it is.

        Args:
            template: As for `build`.
            name: As for `build`.
            alias: As for `build`.
            tags: As for `build`.
            cpu_count: As for `build`.
            memory_mb: As for `build`.
            skip_cache: As for `build`.
            on_build_logs: Called with what happens until the build has started.
            **options: See `ApiParams`.

        Example:
            ```python
            template = AsyncTemplate().from_base_image().run_cmd("sleep 1")
            info = await AsyncTemplate.build_in_background(template, "sleepy")
            print((await AsyncTemplate.get_build_status(info)).status)
            ```
        """
        build = _new_build(template, build_name(name, alias), tags, cpu_count, memory_mb, skip_cache, on_build_logs)
        return await build.start(await AsyncTemplatePlane.at(cls._configured(options)))

    @classmethod
    async def get_build_status(
        cls, build_info: BuildInfo, logs_offset: int = 0, **options: Unpack[ApiParams]
    ) -> TemplateBuildStatusResponse:
        """How far a build is, with a page of its log.

        Args:
            build_info: What `build_in_background` returned.
            logs_offset: How many lines of the log to skip.
            **options: See `ApiParams`.

        Example:
            ```python
            info = await AsyncTemplate.build_in_background(AsyncTemplate().from_base_image(), "followed")
            page = await AsyncTemplate.get_build_status(info)
            print(page.status, len(page.log_entries))
            ```
        """
        if not isinstance(build_info, BuildInfo):
            raise InvalidArgumentException(f"build_info must be a BuildInfo, not {type(build_info).__name__}")
        offset = arguments.whole(logs_offset, "logs_offset", 0, 2**31 - 1)
        api = await AsyncTemplatePlane.at(cls._configured(options))
        return wire.public_status(await api.build_status(build_info.template_id, build_info.build_id, offset))

    @classmethod
    async def exists(cls, name: str, **options: Unpack[ApiParams]) -> bool:
        """Whether there is a template of that name, whoever's it is.

        Args:
            name: Its name.
            **options: See `ApiParams`.

        Example:
            ```python
            print(await AsyncTemplate.exists("base"))  # True
            ```
        """
        name = arguments.identifier(name, "name")
        return await (await AsyncTemplatePlane.at(cls._configured(options))).has_alias(name)

    @classmethod
    async def alias_exists(cls, alias: str, **options: Unpack[ApiParams]) -> bool:
        """`exists` under its former name.

        Args:
            alias: The template's name.
            **options: See `ApiParams`.

        Example:
            ```python
            print(await AsyncTemplate.alias_exists("base"))  # True
            ```
        """
        return await cls.exists(alias, **options)

    @classmethod
    async def assign_tags(
        cls, target_name: str, tags: str | Sequence[str], **options: Unpack[ApiParams]
    ) -> TemplateTagInfo:
        """Give a build more tags.

        Args:
            target_name: Which build, as ``"name:tag"``.
            tags: One, or several.
            **options: See `ApiParams`.

        Raises:
            TemplateException: there is no such build.

        Example:
            ```python
            await AsyncTemplate.build(AsyncTemplate().from_base_image(), "tagged:v1")
            await AsyncTemplate.assign_tags("tagged:v1", ["stable", "latest"])
            ```
        """
        wanted = wire.NewTags(target=arguments.identifier(target_name, "target_name"), tags=tag_list(tags))
        api = await AsyncTemplatePlane.at(cls._configured(options))
        found = await api.assign_tags(wanted)
        return TemplateTagInfo(found.build_id, found.tags)

    @classmethod
    async def remove_tags(cls, name: str, tags: str | Sequence[str], **options: Unpack[ApiParams]) -> None:
        """Take tags away; the build stays as long as it has another one.

        Args:
            name: Which template.
            tags: One, or several; not ``default``.
            **options: See `ApiParams`.

        Example:
            ```python
            await AsyncTemplate.build(AsyncTemplate().from_base_image(), "untagged:v1", tags=["old"])
            await AsyncTemplate.remove_tags("untagged", "old")
            ```
        """
        wanted = wire.OldTags(name=arguments.identifier(name, "name"), tags=tag_list(tags))
        await (await AsyncTemplatePlane.at(cls._configured(options))).remove_tags(wanted)

    @classmethod
    async def get_tags(cls, template_id: str, **options: Unpack[ApiParams]) -> builtins.list[TemplateTag]:
        """The tags of a template.

        Args:
            template_id: Its id or name.
            **options: See `ApiParams`.

        Example:
            ```python
            await AsyncTemplate.build(AsyncTemplate().from_base_image(), "listed:v1")
            for tag in await AsyncTemplate.get_tags("listed"):
                print(tag.tag, tag.build_id)
            ```
        """
        template_id = arguments.identifier(template_id, "template_id")
        api = await AsyncTemplatePlane.at(cls._configured(options))
        return [wire.public_tag(tag) for tag in await api.tags(template_id)]

    @classmethod
    async def list(cls, **options: Unpack[ApiParams]) -> builtins.list[TemplateInfo]:
        """The templates of this account.

        Args:
            **options: See `ApiParams`.

        Example:
            ```python
            for template in await AsyncTemplate.list():
                print(template.template_id, template.names)
            ```
        """
        api = await AsyncTemplatePlane.at(cls._configured(options))
        return [wire.public_template(template) for template in await api.templates()]

    @classmethod
    async def delete(cls, name: str, **options: Unpack[ApiParams]) -> bool:
        """Delete a template with all its builds; what is being built of it ends.

        Args:
            name: Its name or id.
            **options: See `ApiParams`.

        Returns:
            True, or False if there was none.

        Example:
            ```python
            await AsyncTemplate.build(AsyncTemplate().from_base_image(), "short-lived")
            print(await AsyncTemplate.delete("short-lived"))  # True
            ```
        """
        name = arguments.identifier(name, "name")
        return await (await AsyncTemplatePlane.at(cls._configured(options))).delete_template(name)

    @staticmethod
    def to_json(template: TemplateClass) -> str:
        """What is sent of a template to build it, as JSON; the files that it copies are read for their hashes."""
        recipe = recipe_of(template)
        hashes = [bundle_of(recipe, step).digest if step.type == "COPY" else None for step in recipe.steps]
        return msgspec.json.format(msgspec.json.encode(wire.build_start(recipe, hashes)), indent=2).decode()


def _new_build(
    template: TemplateClass,
    name: str,
    tags: Sequence[str] | None,
    cpu_count: int,
    memory_mb: int,
    skip_cache: bool,
    on_build_logs: OutputHandler[LogEntry] | None,
) -> AsyncBuild:
    wanted = wire.NewBuild(
        name=name,
        cpu_count=arguments.whole(cpu_count, "cpu_count", 1, MAX_CPUS),
        memory_mb=arguments.whole(memory_mb, "memory_mb", 1, MAX_MEMORY_MB),
    )
    if tags:
        wanted.tags = tag_list(tags)
    return AsyncBuild(recipe_of(template), wanted, flag(skip_cache, "skip_cache"), on_build_logs)
