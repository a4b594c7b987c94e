"""Options in a model name such as `kimi-k1-search-silent`: its parts, in any combination and order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from kimi_gateway.dataclass import dataclass

FAMILY = "kimi"  # the row for all names of the family
DEFAULT = "default"  # an alias of the operator's, for requests that name no model
MILLION = "[1m]"  # behind a name: Claude Code, for a window of a million tokens (2026-11)
WEB = "kimi-web/"  # before a name of the family: the same options at the web service
ONLINE = ":online"  # after any name: with web search, as OpenRouter's clients write it (2026-11)


@dataclass(frozen=True, slots=True)
class NameOptions:
    """`thinking`: switched on. `search`: the web may be searched; `research`: thoroughly, in more rounds.
    `silent`: searches are not shown in the text. `system`: a line that is put before the conversation."""

    thinking: bool = False
    search: bool = False
    research: bool = False
    silent: bool = False
    system: str = ""


PLAIN = NameOptions()
_MATH = "Solve the problem step by step, check the result, and write formulas in LaTeX."
# Source: the README of the first free API for kimi.com, "Conversation Completion" (2025-12).
PARTS: Mapping[str, NameOptions] = {
    "search": NameOptions(search=True),
    "research": NameOptions(search=True, research=True),
    "k1": NameOptions(thinking=True),
    "math": NameOptions(thinking=True, system=_MATH),
    "silent": NameOptions(silent=True),
}


LONGEST = 100  # characters of a name whose parts are remembered


def parted(name: str) -> tuple[str, NameOptions]:
    """The name without its parts, and their options; another name is returned unchanged."""
    return _remembered(name) if len(name) <= LONGEST else _parted(name)


def _parted(name: str) -> tuple[str, NameOptions]:
    name = name.removesuffix(MILLION)
    plain = name.removesuffix(ONLINE)
    options = PLAIN if plain == name else PARTS["search"]
    before = WEB if plain.startswith(WEB) else ""
    family, _, rest = plain[len(before) :].partition("-")
    parts = rest.split("-")
    if family != FAMILY or not all(part in PARTS for part in parts):
        return plain, options
    for part in parts:
        options = _both(options, PARTS[part])
    return before + FAMILY, options


_remembered = lru_cache(256)(_parted)


def _both(one: NameOptions, other: NameOptions) -> NameOptions:
    return replace(
        one,
        thinking=one.thinking or other.thinking,
        search=one.search or other.search,
        research=one.research or other.research,
        silent=one.silent or other.silent,
        system=one.system or other.system,
    )
