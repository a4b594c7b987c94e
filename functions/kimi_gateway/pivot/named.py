"""The changes that parts of a model's name (`kimi-k1-search`) make to a request. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kimi_gateway.catalog.names import PLAIN, parted
from kimi_gateway.pivot.search import SearchOptions


def apply(model: str, body: dict[str, Any], search: SearchOptions | None) -> SearchOptions | None:
    """Changes the pivot's body; returns the search that is asked for, by the name or before.

    The client's own `thinking` and `reasoning_effort` count more than the name.
    """
    _, asked = parted(model)
    if asked is PLAIN:
        return search
    if asked.thinking and not {"thinking", "reasoning_effort"} & body.keys():
        body["thinking"] = {"type": "enabled"}
    if asked.system:
        body["messages"] = [{"role": "system", "content": asked.system}, *body["messages"]]
    if asked.search:
        search = replace(search or SearchOptions(asked_by=("model",)), lines=True)
    if search is not None and asked.research:
        search = replace(search, thorough=True, research=True, results=max(search.results, 10))
    if search is not None and asked.silent:
        search = replace(search, lines=False)
    return search
