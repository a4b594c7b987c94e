"""`sdks.openai` and `sdks.anthropic`, imported when a test first asks for one: that takes seconds, and every
process collects all tests."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("openai", "anthropic"):
        return import_module(name)
    raise AttributeError(name)
