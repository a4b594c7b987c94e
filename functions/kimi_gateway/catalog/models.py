"""The models: the names that clients use, the upstream's ids, the vendor's rules and prices for each.

Facts: docs/upstream.md (the platform's published tables of 2026-08 to 2026-10). A new model is a row in
`ROWS`; `scripts/models` then writes the page's table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from kimi_gateway.dataclass import dataclass

PLATFORM = "moonshot"  # the provider of all built-in rows; others are vendors (vendors.py)
Thinking = Literal["switch", "always", "effort", "free"]
Replay = Literal["none", "wanted", "required"]
Choice = Literal["auto", "none", "required", "named"]
Currency = Literal["USD", "CNY"]  # of the platform at api.moonshot.ai, and of the one at api.moonshot.cn

# Each has one legal value and any other is a 400 upstream, so they are dropped before sending (vendor's model
# pages, 2026-09-03).
FIXED_SAMPLING = frozenset(("temperature", "top_p", "n", "presence_penalty", "frequency_penalty"))
# Only the K3 family has a cache with a selectable time to live (2026-10-03).
FIXED_CACHE = frozenset(("prompt_cache_options",))

# The possible values of `tool_choice`: `required` on the K3 family only, a named function on K2.6 without
# thinking only (vendor's description of the API, 2026-08-17, and its pages of 2026-09-03; live refusals).
LEFT_TO_IT: frozenset[Choice] = frozenset(("auto", "none"))
REQUIRED: frozenset[Choice] = LEFT_TO_IT | {"required"}
NAMED: frozenset[Choice] = LEFT_TO_IT | {"named"}
ANY: frozenset[Choice] = REQUIRED | NAMED

MOST_TOOLS = 128  # in one request (vendor's pages, 2026-09-03)
# Tool names that all three of the vendor's endpoints accept (2026-08-17; only one of its texts allows longer
# ones).
TOOL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,127}")


class CatalogFault(ValueError):
    """The operator's models file is wrong; the text names the place."""


@dataclass(frozen=True, slots=True)
class Price:
    """For a million tokens of input without a cache hit, input with one, and output. `source` says where
    it was read, and when. `written` is for input that is written to the cache for an hour, 0 if it costs the
    same as other input. Vouchers are left out: the vendor's bill is what counts."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    input: float
    cached: float
    output: float
    source: str = ""
    written: float = 0.0
    currency: Currency = "USD"

    def of(self, input: int, cached: int, output: int, written: int = 0) -> float:
        """The cost of one answer. `cached` and what was `written` for an hour are parts of `input`."""
        hit = min(cached, input)
        kept = min(written, input - hit) if self.written else 0
        total = (input - hit - kept) * self.input + hit * self.cached + kept * self.written
        total += output * self.output
        return round(total / 1_000_000, 8)


_K2_SINCE = 1_735_785_600  # the K2 contract's own value

# List prices of api.moonshot.ai.
_PAGES = "model pages and price table, 2026-09-03"
_DIGESTS = "two price digests, 2026-10-23"


@dataclass(frozen=True, slots=True)
class Model:
    """One row. Sizes are token counts; `created` is in unix seconds.

    - `window`: input and output together.
    - `max_output`: larger requests are lowered to it. `refuse_output`: larger requests get a 400.
    - `upstream_default`: the vendor's output limit if the request names none (it counts against the window).
    - `default_output`: sent if the client names no limit and the model does not think.
    - `thinking`: "switch" accepts thinking on/off, "always" always thinks, "effort" accepts reasoning_effort,
      "free" passes the client's fields on.
    - `thinks`: whether it thinks by default.
    - `choices`, `choices_thinking`: the possible values of `tool_choice`, without and with thinking.
    - `replay`: while the model thinks, tool calls of the history need their reasoning ("required", else a
      400) or profit from it ("wanted"; vendor's pages, 2026-09-03).
    - `mfjs`: schemas must be in the vendor's dialect (providers/moonshot/schema).
    - `messages`: the platform's Messages endpoint supports it.
    - `tools`: it can call tools.
    - `provider`: who serves it (providers/registry.py).
    - `credits`: the price of one request in credits of the gateway.
    - `price`: the list price. None if it is not known; then the requests' cost is not logged.
    - `picture`: tokens of one still picture at most, 0 if that is not known (then it may fill the window).
    - `currency`: of the vendor's bills, by its address (catalog.load). A price in the other one says nothing.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    id: str
    upstream: str
    window: int
    max_output: int
    refuse_output: int
    upstream_default: int = 0
    default_output: int | None = None
    fixed: frozenset[str] = FIXED_SAMPLING | FIXED_CACHE
    thinking: Thinking = "switch"
    thinks: bool = True
    replay: Replay = "none"
    choices: frozenset[Choice] = NAMED
    choices_thinking: frozenset[Choice] = LEFT_TO_IT
    mfjs: bool = True
    media: bool = True
    messages: bool = False
    created: int = _K2_SINCE
    owned_by: str = "moonshot-ai"
    provider: str = PLATFORM
    price: Price | None = None
    tools: bool = True
    credits: int = 1
    picture: int = 0
    currency: Currency = "USD"


# The image processors that the vendor publishes with its models scale a picture down to at most N patches of
# 14 pixels, of which four make a token: 16,384 patches for K2.5 and K2.6, 65,536 for K3 (`in_patch_limit` in
# preprocessor_config.json, as three open inference engines quote it; read 2026-11-28). A side is filled up to
# an even number of patches, and marks stand around a picture: 512 tokens more are enough. The vendor bills
# animated pictures as videos, and names no bound of a video.
_PICTURE_K2, _PICTURE_K3 = 4_096 + 512, 16_384 + 512
_IN_2026 = 1_767_225_600  # released in 2026; the day is not published


def _k3(id: str, created: int, price: Price) -> Model:
    window = 1_048_576
    return Model(
        id, id, window, window, window, 131_072, fixed=FIXED_SAMPLING, messages=True, thinking="effort",
        replay="wanted", choices=REQUIRED, choices_thinking=REQUIRED, created=created,
        price=price,
    )  # fmt: skip


def _k27(id: str, price: Price) -> Model:
    return Model(
        id, id, 262_144, 262_144, 262_144, 32_768, thinking="always", replay="wanted", created=_IN_2026,
        price=price,
    )  # fmt: skip


_K26 = Model(
    "kimi-k2.6", "kimi-k2.6", 262_144, 262_144, 262_144, 32_768, replay="required", created=_IN_2026,
    price=Price(0.95, 0.16, 4.00, _PAGES), picture=_PICTURE_K2,
)  # fmt: skip


def _k2(id: str, window: int) -> Model:
    """Ids of the K2 contract: models without thinking, with their caps and default (docs/contract.md)."""
    return replace(
        _K26, id=id, window=window, max_output=8_192, refuse_output=128_000, default_output=1_024,
        thinks=False, created=_K2_SINCE,
    )  # fmt: skip


ROWS: tuple[Model, ...] = (
    replace(_K26, id="kimi", thinks=False, created=_K2_SINCE),
    _k2("kimi-k2", 128_000),
    _k2("kimi-k2-0905", 256_000),
    _k3("kimi-k3.1-pro", 1_792_713_600, Price(2.00, 0.20, 10.00, _DIGESTS, 4.00)),
    _k3("kimi-k3.1-pro-highspeed", 1_792_713_600, Price(4.00, 0.20, 20.00, _DIGESTS, 8.00)),
    replace(_k3("kimi-k3", 1_784_160_000, Price(3.00, 0.30, 15.00, _PAGES, 6.00)), picture=_PICTURE_K3),
    _k27("kimi-k2.7-code", Price(0.95, 0.19, 4.00, _PAGES)),
    _k27("kimi-k2.7-code-highspeed", Price(1.90, 0.38, 8.00, _PAGES)),
    _K26,
)

# Retired upstream (404), with the day and the nearest model (help centre, 2026-09-03).
RETIRED: Mapping[str, tuple[str, str]] = {
    "kimi-thinking-preview": ("2025-11-11", "kimi-k3"),
    "kimi-latest": ("2026-01-28", "kimi-k3"),
    "kimi-k2-0711-preview": ("2026-05-25", "kimi-k2"),
    "kimi-k2-0905-preview": ("2026-05-25", "kimi-k2-0905"),
    "kimi-k2-turbo-preview": ("2026-05-25", "kimi-k2"),
    "kimi-k2-thinking": ("2026-05-25", "kimi-k2.6"),
    "kimi-k2-thinking-turbo": ("2026-05-25", "kimi-k2.6"),
    "kimi-k2.5": ("2026-08-31", "kimi-k2.6"),
    "moonshot-v1-8k": ("2026-08-31", "kimi-k2"),
    "moonshot-v1-32k": ("2026-08-31", "kimi-k2"),
    "moonshot-v1-128k": ("2026-08-31", "kimi-k2"),
}

# Media types that the platform accepts as data URLs (docs, 2026-09-03). SVG is not among them.
IMAGE_TYPES = frozenset(
    f"image/{kind}" for kind in ("jpeg", "jpg", "png", "gif", "webp", "bmp", "heic", "heif")
)
VIDEO_TYPES = frozenset(
    f"video/{kind}"
    for kind in ("mp4", "mpeg", "mov", "quicktime", "avi", "x-msvideo", "x-flv", "mpg", "webm", "wmv",
                 "x-ms-wmv", "3gpp")
)  # fmt: skip


_PRICES = {row.upstream: row.price for row in ROWS}

# List prices of api.moonshot.cn, by the upstream's id.
_OF_CN = "a provider's plan from the platform's pages, 2026-09"
_IN_CNY = {
    "kimi-k3": Price(20.0, 2.0, 100.0, _OF_CN, currency="CNY"),
    "kimi-k2.7-code": Price(6.5, 1.3, 27.0, _OF_CN, currency="CNY"),
    "kimi-k2.7-code-highspeed": Price(13.0, 2.6, 54.0, _OF_CN, currency="CNY"),
    "kimi-k2.6": Price(6.5, 1.1, 27.0, _OF_CN, currency="CNY"),
}


def price_of(provider: str, model: Model) -> Price | None:
    """The price in USD of a model as a provider serves it; None if it is not known, or if the bills are in
    another currency. The demo is free."""
    if provider == "demo":
        return Price(0, 0, 0)
    price = list_price(provider, model)
    return price if price is not None and price.currency == "USD" else None


def list_price(provider: str, model: Model) -> Price | None:
    """The price in the currency of the bills; None if it is not known. A row of the operator's without one
    has that of its upstream model."""
    if provider != model.provider:
        return None
    if provider != PLATFORM:  # a vendor's model may have the name of one of the platform's
        return model.price
    for price in (model.price, _PRICES.get(model.upstream), _IN_CNY.get(model.upstream)):
        if price is not None and price.currency == model.currency:
            return price
    return None


def largest_window(model: Model) -> int:
    """The largest window of all rows with the same upstream model: the vendor may accept that much input."""
    windows = [row.window for row in ROWS if (row.upstream, row.provider) == (model.upstream, model.provider)]
    return max(windows, default=model.window)


def cost(
    provider: str, model: Model, input: int, cached: int, output: int, written: int = 0
) -> tuple[float, Currency] | None:
    """The cost of one answer and its currency; None if its price is not known. `cached` and what was
    `written` for an hour are parts of `input`."""
    price = list_price(provider, model)
    return None if price is None else (price.of(input, cached, output, written), price.currency)


# USD for each call of a tool of the platform's; empty answers are free (its price page, 2026-10).
FEES: Mapping[str, float] = {"search": 0.002, "search_pro": 0.003, "fetch": 0.002}


def fee(tools: Iterable[str]) -> float:
    """USD for calls of tools, by their names."""
    return sum(FEES[tool] for tool in tools)


def fee_in_micro(tool: str) -> int:
    """Micro-dollars for a call of a tool."""
    return round(FEES[tool] * 1_000_000)


UNKNOWN_WINDOW = 10_000_000


def neutral(id: str, provider: str = PLATFORM) -> Model:
    """A row for a model that the upstream lists and this table lacks: nothing is dropped, capped or
    defaulted."""
    huge = UNKNOWN_WINDOW
    return Model(
        id, id, huge, huge, huge, fixed=frozenset(), thinking="free", thinks=False, choices=ANY, mfjs=False,
        provider=provider,
    )  # fmt: skip
