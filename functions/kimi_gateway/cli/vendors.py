"""Vendors for commands: their tokens, whether they are accepted, and how old their rows are."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kimi_gateway import settings
from kimi_gateway.catalog import catalog
from kimi_gateway.catalog.models import PLATFORM
from kimi_gateway.cli.entry import Failed
from kimi_gateway.cli.target import Target
from kimi_gateway.cli.upstream import Verdict, recorded_outages, why
from kimi_gateway.observe import redact

if TYPE_CHECKING:
    from kimi_gateway.catalog.vendor import Vendor
    from kimi_gateway.net.http import Client
    from kimi_gateway.providers.provider import Provider, Token


def variable(vendor: str) -> str:
    """The environment variable with a vendor's tokens."""
    return settings.OF_VENDOR + vendor.upper().replace("-", "_")


def _catalog(chosen: Target) -> catalog.Catalog:
    """With the web service of kimi.com at home, so that its tokens can be stored before it is switched on."""
    try:
        return catalog.load(chosen.settings.models, web=chosen.kept_in == "file")
    except catalog.CatalogFault as exc:
        raise Failed(f"KIMI_GATEWAY_MODELS is wrong: {exc}", "settings") from None


def known(chosen: Target, id: str) -> Vendor:
    """Raises UsageError."""
    models = _catalog(chosen)
    vendor = models.vendor(id)
    if vendor is None and id == catalog.WEB:
        raise click.UsageError(f"{id} runs at home only, not in a stack (docs/kimi-web.md).")
    if vendor is None:
        from kimi_gateway.catalog.vendors import VENDORS

        names = ", ".join((PLATFORM, *VENDORS, *models.own_vendors))
        raise click.UsageError(f"{id!r} is not a vendor. Known: {names}. KIMI_GATEWAY_MODELS adds others.")
    return vendor


def check_names(vendor: Vendor, texts: Sequence[str]) -> None:
    """Raises UsageError for a token that names no address of the vendor."""
    if any(map(vendor.misnames, texts)):
        from kimi_gateway.catalog.faults import misnamed

        raise click.UsageError(f"{misnamed(vendor)}.")


def of_texts(vendor: Vendor, texts: Sequence[str]) -> list[Token]:
    from kimi_gateway.providers.provider import Token
    from kimi_gateway.providers.tokens.kept import with_base

    parted = (with_base(text, vendor.bases) for text in texts)
    return [Token.of(secret, base) for base, secret in parted]


def ids(chosen: Target, vendor: str, texts: Sequence[str]) -> list[str]:
    """The ids of stored tokens, in their order."""
    from kimi_gateway.providers.provider import Token

    row = None if vendor == PLATFORM else _catalog(chosen).vendor(vendor)
    tokens = map(Token.of, texts) if row is None else of_texts(row, texts)
    return [token.id for token in tokens]


def used(chosen: Target) -> Iterator[tuple[Vendor, str, list[Token]]]:
    """Each vendor with tokens, their source, and the tokens."""
    kept, fixed = chosen.all_kept(), chosen.settings.vendor_tokens
    models = _catalog(chosen)
    for id in dict.fromkeys((*fixed, *kept)):
        vendor = None if id == PLATFORM else models.vendor(id)
        texts = fixed.get(id) or kept.get(id, ())
        if vendor is not None and texts:
            redact.learn(texts)
            yield vendor, "environment" if fixed.get(id) else chosen.kept_in, of_texts(vendor, texts)


def web_notes(chosen: Target, vendor: Vendor) -> list[str]:
    """The warning about a vendor that is unofficial; empty for others."""
    if vendor.wire == "openai":
        return []
    off = "" if chosen.settings.kimi_web else " It is off: set KIMI_GATEWAY_KIMI_WEB=on."
    return [f"{vendor.id} is unofficial, may stop working, and may cost the account.{off}"]


def unknown(chosen: Target) -> list[str]:
    """Names with tokens that are no vendor's."""
    models = _catalog(chosen)
    names = dict.fromkeys((*chosen.settings.vendor_tokens, *chosen.all_kept()))
    return [id for id in names if id != PLATFORM and models.vendor(id) is None]


def verdicts(chosen: Target, vendor: Vendor, tokens: Sequence[Token]) -> list[Verdict]:
    """Ask the vendor about each token."""
    if not vendor.models and vendor.wire == "openai":
        free = f"{vendor.id} has no request that checks a token without cost"
        return [Verdict(token.id, None, free, unasked=True) for token in tokens]
    lost = [token for token in tokens if vendor.misnames(token.secret)]  # written by hand; it is never sent
    if lost:
        from kimi_gateway.catalog.faults import misnamed

        rest = [token for token in tokens if token not in lost]
        return verdicts(chosen, vendor, rest) + [Verdict(token.id, False, misnamed(vendor)) for token in lost]
    from kimi_gateway.app import http_client
    from kimi_gateway.cli.upstream import verdict

    async def run() -> list[Verdict]:
        client = http_client(next(iter(vendor.bases.values())), os.environ, *vendor.bases.values())
        provider = provider_of(chosen, vendor, client)
        try:
            return await asyncio.gather(*(verdict(provider, token) for token in tokens))
        finally:
            await client.close()

    return asyncio.run(run())


def provider_of(chosen: Target, vendor: Vendor, client: Client) -> Provider:
    """A provider that is asked and sends no chats."""
    from kimi_gateway.net.http import Timeouts

    values = chosen.settings
    of = vendor, client, Timeouts(values.connect_timeout, values.first_byte_timeout), values.event_limit
    if vendor.wire == "openai":
        from kimi_gateway.providers.compatible.provider import Compatible

        return Compatible(*of)
    from kimi_gateway.providers.kimi_web.newest import NAME, NewestFile
    from kimi_gateway.providers.kimi_web.provider import KimiWeb

    return KimiWeb(*of, NewestFile(values.data / NAME), None, time.time)


def outages(chosen: Target, tokens: Sequence[Token]) -> dict[str, str]:
    """Known outages of tokens in words, by id. Raises StoreDown."""
    bad = recorded_outages(chosen)
    return {token.id: ", ".join(map(why, bad[token.id])) for token in tokens if token.id in bad}


def too_old(vendor: Vendor) -> int:
    """The age of a row in days, if it should be checked again; else 0."""
    from kimi_gateway.catalog.vendor import OLD

    age = vendor.age(datetime.now(UTC).date())
    return age if age > OLD else 0
