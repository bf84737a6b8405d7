"""Signed file URLs: the signature of wire version 1."""

from __future__ import annotations

import base64
import math
import time
from typing import Literal, TypedDict
from urllib.parse import quote, urlencode

from grotte._proto import arguments
from grotte.errors import InvalidArgumentException

Operation = Literal["read", "write"]


class Signature(TypedDict):
    """A signature and when it ends.

    Attributes:
        signature: What stands in the URL.
        expiration: In unix seconds; None for never.
    """

    signature: str
    expiration: int | None


def sign(path: str, operation: Operation, user: str, access_token: str, expiration: int | None = None) -> str:
    """The signature of a file URL.

    Args:
        path: The path exactly as it stands in the query, ``""`` if it is absent.
        operation: ``"read"`` for downloads, ``"write"`` for uploads.
        user: The user name of the query, ``""`` if it is absent.
        access_token: The sandbox's access token.
        expiration: When the URL ends, in unix seconds; None for never.

    Returns:
        ``v1_`` and the unpadded base64 of the SHA-256; percent-encode it in a URL.
    """
    import hashlib  # here: few sign, and it takes several MiB

    raw = f"{path}:{operation}:{user}:{access_token}"
    if expiration is not None:
        raw += f":{expiration}"
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
    return "v1_" + base64.b64encode(digest).rstrip(b"=").decode()


def get_signature(
    path: str,
    operation: Operation,
    user: str | None,
    envd_access_token: str | None,
    expiration_in_seconds: float | None = None,
) -> Signature:
    """Sign a file URL of a sandbox, as `download_url` and `upload_url` do.

    Args:
        path: The path exactly as it will stand in the URL, ``""`` if it will not.
        operation: ``"read"`` for downloads, ``"write"`` for uploads.
        user: The user name that will stand in the URL.
        envd_access_token: The sandbox's access token.
        expiration_in_seconds: How long it holds, in seconds; None and 0: as long as the sandbox.

    Raises:
        InvalidArgumentException: there is no token, or an argument is wrong.

    Example:
        ```python
        signed = get_signature("/tmp/data.csv", "read", None, token, expiration_in_seconds=60)
        ```
    """
    if not envd_access_token:
        raise InvalidArgumentException("without the sandbox's access token nothing can be signed")
    if operation not in ("read", "write"):
        raise InvalidArgumentException(f"operation must be 'read' or 'write', not {arguments.shown(operation)}")
    path = arguments.text(path, "path", empty=True)
    seconds = arguments.seconds(expiration_in_seconds, "the expiration")
    expiration = None if seconds is None else int(time.time()) + math.ceil(seconds)
    return {"signature": sign(path, operation, user or "", envd_access_token, expiration), "expiration": expiration}


def file_url(
    base: str, path: str, operation: Operation, user: str | None, token: str | None, lifetime: float | None
) -> str:
    """The URL of a file, signed if the sandbox has a token.

    Raises:
        InvalidArgumentException: an end is wanted of a URL that is not signed, or an argument is wrong.
    """
    if lifetime is not None and not token:
        raise InvalidArgumentException(
            "the sandbox was created with secure=False: its URLs are not signed and never end"
        )
    query = {"path": arguments.text(path, "path", empty=True), "username": user or ""}
    if token:
        signed = get_signature(path, operation, user, token, lifetime)
        query["signature"] = signed["signature"]
        query["signature_expiration"] = "" if signed["expiration"] is None else str(signed["expiration"])
    found = urlencode({key: value for key, value in query.items() if value}, quote_via=quote)
    return f"{base}/files?{found}" if found else f"{base}/files"
