"""Endpoints that are loaded with the first request that needs them, so that a start stays short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kimi_gateway.accounts.store import Store
from kimi_gateway.flow.ask import Gateway

if TYPE_CHECKING:
    from kimi_gateway.endpoints.usage import UserUsage


def usage(gateway: Gateway, store: Store) -> UserUsage:
    from kimi_gateway.endpoints.usage import UserUsage

    return UserUsage(gateway.gate, store, gateway.clock, gateway.settings.keep_usage)
