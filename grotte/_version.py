"""The version, in one place that is cheap to import."""

from __future__ import annotations

__version__ = "0.3.0"
