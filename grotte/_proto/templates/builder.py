"""The builder of templates, from its start on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self, TypeAlias, TypedDict

from grotte._proto import arguments
from grotte._proto.templates import commands
from grotte._proto.templates.commands import StrPath
from grotte._proto.templates.ready import ReadyCmd, ready_line
from grotte._proto.templates.recipe import Recipe, context_path
from grotte.errors import InvalidArgumentException

Several: TypeAlias = "str | Sequence[str]"
SeveralPaths: TypeAlias = "StrPath | Sequence[StrPath]"


class _CopyItem(TypedDict):
    src: SeveralPaths
    dest: StrPath


class CopyItem(_CopyItem, total=False):
    """What `copy_items` copies; each as the argument of `copy`.

    Attributes:
        src: What.
        dest: Where to.
        forceUpload: As `force_upload`.
        user: Whose it will be.
        mode: Its permissions.
        resolveSymlinks: As `resolve_symlinks`.
    """

    forceUpload: Literal[True] | None
    user: str | None
    mode: int | None
    resolveSymlinks: bool | None


_COPY_ITEM = {
    "src": "src",
    "dest": "dest",
    "forceUpload": "force_upload",
    "user": "user",
    "mode": "mode",
    "resolveSymlinks": "resolve_symlinks",
}


class TemplateFinal:
    """A template that is described to its end: it can be built."""

    def __init__(self, recipe: Recipe) -> None:
        """Not to be called: `set_start_cmd` and `set_ready_cmd` make them."""
        self._recipe = recipe

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._recipe.summary()})"


class TemplateBuilder:
    """A template that grows: every method adds a step to it and returns it.

    Paths and names are taken as they are: the shell sees them quoted.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Not to be called: ``Template().from_image()`` and its like make them."""
        self._recipe = recipe

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._recipe.summary()})"

    def copy(
        self,
        src: SeveralPaths,
        dest: StrPath,
        force_upload: Literal[True] | None = None,
        user: str | None = None,
        mode: int | None = None,
        resolve_symlinks: bool | None = None,
    ) -> Self:
        """Copy files of this machine.

        Args:
            src: Paths or patterns, relative to the context directory, which they cannot leave.
            dest: Where to; a directory if it ends with a slash.
            force_upload: Send the files although they were sent before.
            user: Whose they will be, as ``user`` or ``user:group``; default: the current user.
            mode: Their permissions, such as ``0o755``; default: as they are here.
            resolve_symlinks: Copy what links point at, not the links.

        Example:
            ```python
            Template().from_base_image().copy(["app.py", "settings.toml"], "/app/", mode=0o644)
            ```
        """
        target, forced = commands.one_path(dest, "dest"), None if force_upload is None else bool(force_upload)
        owner = "" if user is None else arguments.text(user, "user")
        permissions = "" if mode is None else commands.octal(mode)
        resolve = resolve_symlinks is not None and commands.flag(resolve_symlinks, "resolve_symlinks")
        for source in [context_path(path) for path in commands.paths(src, "src")]:
            args = (source, target, owner, permissions)
            self._recipe.add("COPY", *args, force_upload=forced, resolve_symlinks=resolve)
        return self

    def copy_items(self, items: Sequence[CopyItem]) -> Self:
        """Copy files of this machine to several places; see `copy`."""
        for item in commands.several(items, "items"):
            if not isinstance(item, Mapping) or not {"src", "dest"} <= item.keys() <= _COPY_ITEM.keys():
                raise InvalidArgumentException(
                    f"each of items must be a dict with 'src' and 'dest', not {arguments.shown(item)}"
                )
            self.copy(**{_COPY_ITEM[key]: value for key, value in item.items()})
        return self

    def run_cmd(self, command: Several, user: str | None = None) -> Self:
        """Run a shell command; the build fails if it does.

        Args:
            command: One, or several of which each runs if the one before succeeded.
            user: Who runs it; default: the current user.
        """
        line = commands.run_line(command)
        self._recipe.add("RUN", line, *([] if user is None else [arguments.user_name(user)]))
        return self

    def set_workdir(self, workdir: StrPath) -> Self:
        """Set where all that follows starts, and commands in sandboxes do; it is made if it is not there."""
        self._recipe.add("WORKDIR", commands.one_path(workdir, "workdir"))
        return self

    def set_user(self, user: str) -> Self:
        """Set who runs all that follows, and commands in sandboxes; an account is made if there is none."""
        self._recipe.add("USER", arguments.text(user, "user"))
        return self

    def set_envs(self, envs: Mapping[str, str]) -> Self:
        """Set environment variables for all that follows, and for sandboxes.

        Args:
            envs: ``$NAME`` and ``${NAME}`` in a value stand for a variable that is set already; ``\\$`` for a dollar.
        """
        found = arguments.environment(envs)
        if found:
            self._recipe.add("ENV", *(word for pair in found.items() for word in pair))
        return self

    def apt_install(self, packages: Several, no_install_recommends: bool = False, fix_missing: bool = False) -> Self:
        """Install packages of the distribution, as root.

        Args:
            packages: Their names: words of a string, or items of a list.
            no_install_recommends: Only what they need.
            fix_missing: Go on if some cannot be fetched.
        """
        line = commands.apt_line(packages, no_install_recommends=no_install_recommends, fix_missing=fix_missing)
        return self.run_cmd(line, "root")

    def pip_install(self, packages: Several | None = None, g: bool = True) -> Self:
        """Install Python packages.

        Args:
            packages: Their names; None for the project in the current directory.
            g: For all users, as root; else for the current user.
        """
        line = commands.install_line(["pip", "install"], packages, [("--user", not commands.flag(g, "g"))], ".")
        return self.run_cmd(line, "root" if g else None)

    def npm_install(self, packages: Several | None = None, g: bool = False, dev: bool = False) -> Self:
        """Install Node.js packages with npm.

        Args:
            packages: Their names; None for what ``package.json`` in the current directory asks for.
            g: For all projects, as root.
            dev: Note them as needed for development only.
        """
        line = commands.install_line(["npm", "install"], packages, [("-g", g), ("--save-dev", dev)])
        return self.run_cmd(line, "root" if g else None)

    def bun_install(self, packages: Several | None = None, g: bool = False, dev: bool = False) -> Self:
        """Install packages with Bun; as `npm_install`."""
        line = commands.install_line(["bun", "install"], packages, [("-g", g), ("--dev", dev)])
        return self.run_cmd(line, "root" if g else None)

    def git_clone(
        self,
        url: str,
        path: StrPath | None = None,
        branch: str | None = None,
        depth: int | None = None,
        user: str | None = None,
    ) -> Self:
        """Clone a Git repository.

        Args:
            url: Where it is.
            path: Where to; default: what Git chooses, in the current directory.
            branch: Only this branch.
            depth: Only so many commits.
            user: Who clones it; default: the current user.
        """
        return self.run_cmd(commands.git_clone_line(url, path, branch, depth), user)

    def make_dir(self, path: SeveralPaths, mode: int | None = None, user: str | None = None) -> Self:
        """Make directories, with those that they are in.

        Args:
            path: One, or several.
            mode: Permissions, such as ``0o755``.
            user: Who makes them; default: the current user.
        """
        return self.run_cmd(commands.make_dir_line(path, mode), user)

    def make_symlink(self, src: StrPath, dest: StrPath, user: str | None = None, force: bool = False) -> Self:
        """Make a symbolic link.

        Args:
            src: What it points at.
            dest: Where it is.
            user: Who makes it; default: the current user.
            force: Replace what is there.
        """
        return self.run_cmd(commands.make_symlink_line(src, dest, force=force), user)

    def remove(self, path: SeveralPaths, force: bool = False, recursive: bool = False, user: str | None = None) -> Self:
        """Remove files or directories.

        Args:
            path: One, or several; no patterns.
            force: Even if they are not there.
            recursive: With all that is in them.
            user: Who removes them; default: the current user.
        """
        return self.run_cmd(commands.remove_line(path, force=force, recursive=recursive), user)

    def rename(self, src: StrPath, dest: StrPath, force: bool = False, user: str | None = None) -> Self:
        """Move a file or a directory.

        Args:
            src: What.
            dest: Where to.
            force: Replace what is there without asking.
            user: Who moves it; default: the current user.
        """
        return self.run_cmd(commands.rename_line(src, dest, force=force), user)

    def skip_cache(self) -> Self:
        """Do all that follows again, although it was done before."""
        self._recipe.force_next = True
        return self

    def set_start_cmd(self, start_cmd: str, ready_cmd: str | ReadyCmd) -> TemplateFinal:
        """Set what runs in every sandbox; the last call of a description.

        Args:
            start_cmd: A shell command.
            ready_cmd: Repeated until it succeeds: then a sandbox is ready. See `wait_for_port` and its like.

        Example:
            ```python
            Template().from_base_image().set_start_cmd("python3 -m http.server 8000", wait_for_port(8000))
            ```
        """
        start, ready = arguments.command_line(start_cmd), ready_line(ready_cmd)
        self._recipe.start_cmd, self._recipe.ready_cmd = start, ready
        return TemplateFinal(self._recipe)

    def set_ready_cmd(self, ready_cmd: str | ReadyCmd) -> TemplateFinal:
        """Set what succeeds when a sandbox is ready; the last call of a description."""
        self._recipe.ready_cmd = ready_line(ready_cmd)
        return TemplateFinal(self._recipe)
