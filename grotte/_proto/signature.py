"""Signed file URLs: the signature of wire version 1."""

from __future__ import annotations

import base64
import hashlib
from typing import Literal

Operation = Literal["read", "write"]


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
    raw = f"{path}:{operation}:{user}:{access_token}"
    if expiration is not None:
        raw += f":{expiration}"
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
    return "v1_" + base64.b64encode(digest).rstrip(b"=").decode()
