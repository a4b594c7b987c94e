"""`sdks.openai` and `sdks.anthropic`, imported when a test first asks for one: that takes seconds, and every
process collects all tests."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("openai", "anthropic"):
        raise AttributeError(name)
    if name not in sys.modules:
        import_module(name)
        gc.collect()
        gc.freeze()  # as what was collected, it stays to the end
    return sys.modules[name]
