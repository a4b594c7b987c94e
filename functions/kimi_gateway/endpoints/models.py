"""The list of models, and one model."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.refusals import not_allowed
from kimi_gateway.accounts.values import NEVER, Key
from kimi_gateway.catalog.models import PLATFORM, Model, list_price, price_of
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate
from kimi_gateway.errors import Unavailable
from kimi_gateway.http import Request, Response
from kimi_gateway.providers.registry import Registry

# Defaults of an entry from the upstream's list, so that each has the members of the K2 contract.
_LISTED = {"object": "model", "created": 0, "owned_by": "moonshot", "permission": [], "parent": None}


@dataclass(frozen=True, slots=True)
class Models:
    gate: Gate
    registry: Registry

    async def models(self, request: Request) -> Response:
        """OpenAI's list and Anthropic's page in one. All models are on one page, whatever `limit` says."""
        key = await authenticate(self.gate, request)
        entries = await self._entries(key)
        ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]} if entries else {}
        return answer({"object": "list", "data": entries, "has_more": False, **ends})

    async def model(self, request: Request, model: str) -> Response:
        """One model, by its id or an alias of the operator; the answer carries the requested name."""
        key = await authenticate(self.gate, request)
        row = (await self.registry.resolve(model, partial(self.gate.has_credit, key))).model
        if not terms.allows(key, (model, row.id)):
            raise not_allowed(key)
        listed = {entry["id"]: entry for entry in await self._entries(key)}
        return answer({**(listed.get(row.id) or entry_of(row, self._platform())), "id": model})

    async def _entries(self, key: Key) -> list[dict[str, Any]]:
        """All entries. For an account without credits the upstream's part is the last known one."""
        platform = self._platform()
        entries = {row.id: entry_of(row, platform) for row in self.registry.rows.values()}
        for directory in self.registry.all_directories:
            listed = directory.listed
            if not directory.fresh() and await self.gate.has_credit(key):
                with self.gate.places.held(key.account):
                    listed = await directory.live()
            entries |= {id: _listed(id, entry) for id, entry in listed.items() if id not in entries}
        shown = [entry for id, entry in entries.items() if terms.allows(key, (id,))]
        for alias, id in self.registry.catalog.named.items():
            if id in entries and alias not in entries and terms.allows(key, (alias, id)):
                shown.append({**entries[id], "id": alias})
        return shown

    def _platform(self) -> str:
        """Who serves the platform's models now: the platform, or the demo."""
        try:
            return self.registry.directories[PLATFORM].upstream().provider.name
        except (KeyError, Unavailable):
            return PLATFORM


def _listed(id: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of a model that only the upstream lists. Its output limit is its window."""
    created, window = entry.get("created"), entry.get("context_length")
    window = window if type(window) is int else None
    known = _in_anthropic(id, created if type(created) is int else 0, window, window)
    return {**_LISTED, "root": id, **known, **entry}


def _in_anthropic(id: str, created: int, window: int | None, output: int | None) -> dict[str, Any]:
    """The members of Anthropic's model object (its SDK 2.13, 2026-11)."""
    return {
        "type": "model",
        "display_name": " ".join(part[:1].upper() + part[1:] for part in id.split("-")),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(created, 0), NEVER))),
        "max_input_tokens": window,
        "max_tokens": output,
        "lifecycle": "active",
    }


def entry_of(row: Model, platform: str = PLATFORM) -> dict[str, Any]:
    """An entry with the members of OpenAI, the K2 contract, Anthropic, those that Kimi's own clients read,
    and prices for one token in the form of OpenRouter's list (2026-11). `platform` serves the platform's
    models."""
    return {
        "id": row.id,
        "object": "model",
        **_in_anthropic(row.id, row.created, row.window, row.max_output),
        "created": row.created,
        "owned_by": row.owned_by,
        "permission": [],
        "root": row.upstream,
        "parent": None,
        "context_length": row.window,
        "max_output_tokens": row.max_output,
        "supports_image_in": row.media,
        "supports_video_in": row.media,
        "supports_reasoning": row.thinking != "free",
        "reasoning_control": None if row.thinking == "free" else row.thinking,
        "pricing": _pricing(platform if row.provider == PLATFORM else row.provider, row),
    }


def _pricing(provider: str, row: Model) -> dict[str, str] | None:
    price = list_price(provider, row) or price_of(provider, row)
    if price is None:
        return None
    each = {"prompt": price.input, "completion": price.output, "input_cache_read": price.cached}
    return {name: _per_token(million) for name, million in each.items()} | {"currency": price.currency}


def _per_token(million: float) -> str:
    """A decimal number without an exponent."""
    return f"{million / 1_000_000:.12f}".rstrip("0").rstrip(".")
