"""Credentials for git: to the remote that they are for, and nowhere else.

They reach the shell that starts git by its stdin and git's own credential helper by the environment of that one
command: no command line, no file and no configuration ever holds them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from grotte._proto import arguments, git
from grotte.errors import CommandExitException, InvalidArgumentException
from grotte.models import CommandResult

USERNAME = "GROTTE_GIT_USERNAME"
PASSWORD = "GROTTE_GIT_PASSWORD"  # noqa: S105 - a variable's name
HIDDEN = "***"

#: What git runs to get them; it says nothing when it is told to keep or forget them.
_HELPER = f"""!f() {{ test "$1" = get && printf 'username=%s\\npassword=%s\\n' "${USERNAME}" "${PASSWORD}"; }}; f"""
_READ = f"IFS= read -r {USERNAME} && IFS= read -r {PASSWORD} && export {USERNAME} {PASSWORD} && "
_IN_URL = re.compile(r"://[^/\s'\"]+@")

_AUTH_FAILED = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "invalid username or password",
    "access denied",
    "not authorized",
    "permission denied (",  # as ssh says it; without the bracket it is about a local file
    "returned error: 401",
    "returned error: 403",
)
_NO_UPSTREAM = (
    "has no upstream branch",
    "no upstream configured",
    "no tracking information",
    "please specify which branch you want to merge with",
    "no configured push destination",
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password or token."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def stdin(self) -> str:
        """What the command of `reading` reads."""
        return f"{self.username}\n{self.password}\n"

    @property
    def envs(self) -> dict[str, str]:
        """The same for agents whose commands cannot be given a stdin that ends."""
        return {USERNAME: self.username, PASSWORD: self.password}

    def hide(self, text: str) -> str:
        """A text without them, in whatever form."""
        pair = b64encode(f"{self.username}:{self.password}".encode()).decode()
        secret = self.password or self.username
        for form in (pair, secret, quote(secret, safe=""), quote(secret)):
            text = text.replace(form, HIDDEN)
        return text


def credentials(username: object, password: object) -> Credentials | None:
    """The credentials of a call; a name alone is none."""
    if password is None or password == "":
        if username is not None:
            _credential(username, "username")
        return None
    if username is None or username == "":
        raise InvalidArgumentException("a password or token needs a username as well")
    return Credentials(_credential(username, "username"), _credential(password, "password"))


def _credential(value: object, what: str) -> str:
    found = arguments.text(value, what)
    if "\n" in found or "\r" in found:
        raise InvalidArgumentException(f"{what} must not contain line breaks")
    return found


def split_url(url: object) -> tuple[str, Credentials | None]:
    """A URL without user and password, and those; what is no http:// or https:// URL is left as it is.

    A token may stand in a URL as the name of a user without a password.
    """
    found = git.name(url, "url")
    parts = _parts(found)
    if parts is None or parts.username is None:
        return found, None
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user, password = unquote(parts.username), unquote(parts.password or "")
    if not user and not password:
        return clean, None
    return clean, Credentials(_credential(user, "the user in url"), password and _credential(password, "password"))


def with_credentials(url: str, given: Credentials) -> str:
    """A URL with them in it, quoted."""
    parts = urlsplit(url)
    userinfo = f"{quote(given.username, safe='')}:{quote(given.password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}"))


def settings(url: str) -> list[str]:
    """What makes git ask for the credentials, of one host alone, and keep them nowhere.

    Raises:
        InvalidArgumentException: the URL is of a kind that takes none.
    """
    parts = _parts(url)
    if parts is None:
        raise InvalidArgumentException("a username and a password work with http:// and https:// remotes only")
    host = parts.netloc.rpartition("@")[2]
    # the empty one takes away what was configured before, which might store what worked
    return ["credential.helper=", f"credential.{parts.scheme}://{host}.helper={_HELPER}"]


def reading(command: str) -> str:
    """A command that reads the credentials from its stdin first."""
    return _READ + command


def approval(protocol: str, host: str) -> str:
    """The command that hands the credentials to the helper that is configured."""
    form = f"protocol={protocol}\\nhost={host}\\nusername=%s\\npassword=%s\\n\\n"
    return f"""printf '{form}' "${USERNAME}" "${PASSWORD}" | {git.command(["credential", "approve"])}"""


def directory_of(url: str) -> str:
    """The directory into which git clones a URL."""
    last = url.rstrip("/").rpartition("/")[2]
    return last.removesuffix(".git")


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable and "://" in url and url.partition(":")[0].lower() in ("http", "https"):
        raise InvalidArgumentException("url is no usable URL")
    return parts if usable else None


# -- what went wrong -----------------------------------------------------------------------------------------------

Trouble = Literal["authentication", "upstream", "missing"]


def without_secrets(failure: CommandExitException, given: Credentials | None) -> CommandExitException:
    """The same failure, fit to be shown."""
    stdout, stderr = (_IN_URL.sub(f"://{HIDDEN}@", text) for text in (failure.stdout, failure.stderr))
    if given is not None:
        stdout, stderr = given.hide(stdout), given.hide(stderr)
    return CommandExitException(stderr, stdout, failure.exit_code, failure.error, failure.sandbox_id)


def hidden(result: CommandResult, given: Credentials | None) -> CommandResult:
    """The same result without the credentials."""
    if given is None:
        return result
    return CommandResult(given.hide(result.stderr), given.hide(result.stdout), result.exit_code, result.error)


def trouble(failure: CommandResult) -> Trouble | None:
    """What git's words mean, as far as callers tell failures apart."""
    said = f"{failure.stderr}\n{failure.stdout}".lower()
    if failure.exit_code == 127 and "git" in said:
        return "missing"
    if any(words in said for words in _AUTH_FAILED):
        return "authentication"
    return "upstream" if any(words in said for words in _NO_UPSTREAM) else None
