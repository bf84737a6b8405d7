"""Errors of the way to a sandbox as a page, for people who look at a sandbox's port with a browser."""

from __future__ import annotations

from html import escape

from grotte.engine.faults import Fault, ProxyFault
from grotte.engine.http import Request

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 20vh auto; padding: 0 1rem }}</style>
<h1>{title}</h1>
<p>Sandbox <code>{sandbox}</code>{port}</p>
</html>
"""


class PageFault(ProxyFault):
    """The same error, to be looked at."""

    def body(self) -> bytes:
        port = "" if self.port is None else f", port {self.port}"
        return _PAGE.format(title=escape(self.message), sandbox=escape(self.sandbox_id), port=port).encode()

    @property
    def content_type(self) -> str:
        return "text/html; charset=utf-8"


def for_browser(fault: Fault, request: Request) -> Fault:
    """The fault as a page if a browser asked for one, else as it is."""
    if isinstance(fault, ProxyFault) and "text/html" in request.headers.get("accept", ""):
        return PageFault(fault.status, fault.message, fault.sandbox_id, fault.port)
    return fault
