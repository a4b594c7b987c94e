"""Finds the model row for a client's name; adds the operator's own rows and aliases."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from kimi_gateway.catalog.models import PLATFORM, RETIRED, ROWS, Currency, Model, neutral
from kimi_gateway.catalog.models import CatalogFault as CatalogFault
from kimi_gateway.catalog.names import DEFAULT, parted
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest, ModelNotFound
from kimi_gateway.settings import Settings

if TYPE_CHECKING:
    from kimi_gateway.catalog.vendor import Vendor

_PATTERN = re.compile(r"[*?\[]")
_NARROW = re.compile(r"[?\[]")  # what fits one character only
_AGENT_ID = re.compile(r"[0-9a-z]{20}")
WEB = "kimi-web"  # the vendor that the operator must switch on (kimi_web.py)
WEB_WARNING = (
    "kimi-web is on: it is unofficial, may stop working at any time, and may cost you the account;"
    " the official platform is the supported way (docs/kimi-web.md)"
)
SHORT: Mapping[str, str] = {"emohaa": "glm/emohaa"}  # the name of the second free API (its README, 2025-12)

_MEMBERS = (
    "like",
    *(each.name for each in dataclasses.fields(Model)),
)  # members of a row in the operator's file


MOST_CREDITS = 1_000_000  # of one request


class Catalog:
    """The built-in rows with the operator's rows, vendors and aliases. An alias may contain `*`; the first
    match wins."""

    def __init__(
        self,
        rows: Collection[Model] = ROWS,
        aliases: Mapping[str, str] | None = None,
        vendors: Mapping[str, Vendor] | None = None,
    ) -> None:
        self.rows: dict[str, Model] = {row.id: row for row in rows}
        self.aliases = dict(aliases or {})
        self.own_vendors = dict(vendors or {})
        self.aliases = {alias: self._end(alias) for alias in self.aliases}

    def _end(self, alias: str) -> str:
        """The model at the end of an alias, which may lead to others. Raises CatalogFault."""
        way, target = [alias], SHORT.get(self.aliases[alias], self.aliases[alias])
        while target not in self.rows and self.of_vendor(target) is None:
            way.append(target)
            following = self._match(target)
            if following is None:
                from kimi_gateway.catalog.faults import near

                like = near(target, self.rows)
                hint = f"; did you mean {like!r}?" if like else ""
                raise CatalogFault(f"aliases: {alias!r} points to {target!r}, which is not a model{hint}")
            target = self.aliases[following]
            if target in way or following in way:
                shown = " → ".join([*way, target])
                raise CatalogFault(f"aliases: {alias!r} leads in a circle and never to a model: {shown}")
        return target

    def refuse_ignored(self, aliases: Collection[str]) -> None:
        """Raises CatalogFault for the first of `aliases` that no request would ever use: a model has its
        name, requests lose a part of it, or an earlier one fits all that it fits."""
        for alias in aliases:
            plain, _ = parted(alias)
            if plain != alias:
                raise CatalogFault(f"aliases: requests for {alias!r} ask for {plain!r} and options of it")
            if alias in self.rows or self.of_vendor(alias) is not None:
                raise CatalogFault(f"aliases: {alias!r} is a model's own name, which is never replaced")
            found = self._match(alias)
            if found is None or found == alias or found not in aliases:
                continue
            if not _PATTERN.search(alias) or not _NARROW.search(found):
                raise CatalogFault(f"aliases: {alias!r} has no effect behind {found!r}; put it before that")

    def _match(self, name: str) -> str | None:
        """The first alias that fits a name."""
        return next((alias for alias in self.aliases if fnmatch.fnmatchcase(name, alias)), None)

    @property
    def named(self) -> dict[str, str]:
        """The aliases that are names and not patterns, with their models."""
        return {alias: target for alias, target in self.aliases.items() if not _PATTERN.search(alias)}

    def find(self, name: str) -> Model | None:
        """The row for an id or an alias, None if there is none."""
        if name in self.rows:
            return self.rows[name]
        target = self.target(name)
        return None if target is None else self.rows.get(target) or self.of_vendor(target)

    def target(self, name: str) -> str | None:
        """The id that an alias stands for; a name of the form vendor/model stands for itself."""
        if "/" in name and self.of_vendor(name) is not None:
            return name
        alias = self._match(name)
        if alias is not None:
            return self.aliases[alias]
        return name if "/" in name else SHORT.get(name) or self._agent(name)

    def _agent(self, name: str) -> str | None:
        """The id of an agent of kimi.com, as the first free API had it, where the web service is on."""
        return f"{WEB}/{name}" if WEB in self.own_vendors and _AGENT_ID.fullmatch(name) else None

    def vendor(self, id: str) -> Vendor | None:
        """The operator's row of a vendor, else the built-in one."""
        if id in self.own_vendors:
            return self.own_vendors[id]
        from kimi_gateway.catalog.vendors import VENDORS  # few gateways need them

        return VENDORS.get(id)

    def of_vendor(self, name: str) -> Model | None:
        """The row for `vendor/model`; None if there is no such vendor, or if it lacks the model."""
        id, slash, model = name.partition("/")
        vendor = self.vendor(id) if slash and model else None
        return None if vendor is None else vendor.row(model)

    def unknown(self, name: str, plain: str) -> ModelNotFound | InvalidRequest:
        """The error for a name without a row; `plain` is the name without its options. InvalidRequest for the
        id of an agent."""
        if plain == DEFAULT:
            return InvalidRequest("model: is required", param="model")
        if _AGENT_ID.fullmatch(plain):
            return InvalidRequest("Agent ids are not models here. GET /v1/models lists them.", param="model")
        hint = "GET /v1/models lists them."
        if plain in RETIRED:
            day, instead = RETIRED[plain]
            hint = f"The vendor retired it on {day}; {instead} is the nearest."
        shown = name if len(name) <= 80 else name[:80] + "…"
        return ModelNotFound(f"The model {shown!r} does not exist. {hint}", param="model")


def currency_of(base_url: str) -> Currency:
    """The currency of the platform's bills, by its address."""
    host = base_url.partition("://")[2].partition("/")[0].partition(":")[0]
    return "CNY" if host.endswith(".cn") else "USD"


def of_settings(settings: Settings) -> Catalog:
    """Raises CatalogFault."""
    currency = currency_of(settings.base_url)
    of = settings.models, settings.vendor_tokens, currency, settings.aliases, settings.fallbacks
    return load(*of, settings.kimi_web)


def load(
    path: Path | None,
    tokens: Mapping[str, Iterable[str]] = MappingProxyType({}),
    currency: Currency = "USD",
    aliases: Iterable[tuple[str, str]] = (),
    chains: Mapping[str, Iterable[str]] = MappingProxyType({}),
    web: bool = False,
) -> Catalog:
    """The catalog with the operator's file: `{"models": [{"id", "upstream", …}], "aliases": {"a-*": "id"}}`.

    A row takes missing values from the built-in row that it names as `like`, else from the neutral row.
    `tokens` are those of KIMI_GATEWAY_TOKENS_… by vendor, `chains` those of KIMI_GATEWAY_FALLBACKS. The
    platform's rows get the `currency` of its bills. `aliases` are those of KIMI_GATEWAY_ALIASES, which come
    before the file's. `web`: with the web service of kimi.com. Raises CatalogFault.
    """
    more = _web() if web else {}
    models = Catalog(vendors=more) if path is None else _of_file(path, more)
    if first := dict(aliases):
        every = first | {alias: id for alias, id in models.aliases.items() if alias not in first}
        try:
            models = Catalog(models.rows.values(), every, models.own_vendors)
            models.refuse_ignored(first)
        except CatalogFault as exc:
            raise CatalogFault(f"KIMI_GATEWAY_ALIASES is wrong: {exc}") from exc
    _check_vendors(models, tokens)
    for name, links in chains.items():
        for link in links:
            if models.find(link) is None:
                raise CatalogFault(
                    f"KIMI_GATEWAY_FALLBACKS: {link!r} in the chain of {name!r} is not a model"
                )
    if currency != "USD":
        for id, row in models.rows.items():
            models.rows[id] = replace(row, currency=currency) if row.provider == PLATFORM else row
    return models


def _web() -> dict[str, Vendor]:
    from kimi_gateway.catalog.kimi_web import ROW  # few gateways use it

    return {ROW.id: ROW}


def _of_file(path: Path, more: Mapping[str, Vendor]) -> Catalog:
    from pydantic import TypeAdapter, ValidationError  # only if there is a file to check

    from kimi_gateway.catalog.faults import told

    try:
        document = TypeAdapter(_Document).validate_json(path.read_bytes())
        rows, vendors = {row.id: row for row in ROWS}, own_vendors(document.vendors)
        if not more and any(vendor.wire != "openai" for vendor in vendors.values()):
            raise CatalogFault("vendors: a row like kimi-web needs KIMI_GATEWAY_KIMI_WEB=on")
        vendors = {**more, **vendors}
        known = Catalog(vendors=vendors)
        for index, entry in enumerate(document.models):
            where = f"models[{index}]"
            values = _under(entry, where, rows, known) | entry
            try:
                row = TypeAdapter(Model).validate_json(json.dumps(values))
            except ValidationError as exc:
                raise CatalogFault(told(exc, where, _MEMBERS)) from exc
            rows[row.id] = _sane(row, where)
        models = Catalog(rows.values(), document.aliases, vendors)
        models.refuse_ignored(document.aliases)
        return models
    except ValidationError as exc:
        raise CatalogFault(f"{path}: {told(exc, '', ['models', 'aliases', 'vendors'])}") from exc
    except OSError as exc:
        raise CatalogFault(f"{path} cannot be read: {exc.strerror}") from exc
    except CatalogFault as exc:
        raise CatalogFault(f"{path}: {exc}") from exc


def _check_vendors(models: Catalog, tokens: Mapping[str, Iterable[str]]) -> None:
    """Raises CatalogFault for a name in KIMI_GATEWAY_TOKENS_… that does not belong to a vendor, and for a
    token that names no address of its vendor."""
    for name, texts in tokens.items():
        vendor = models.vendor(name)
        if vendor is None:
            if name == WEB:
                raise CatalogFault(f"KIMI_GATEWAY_TOKENS_…: {WEB} needs KIMI_GATEWAY_KIMI_WEB=on")
            from kimi_gateway.catalog.faults import near
            from kimi_gateway.catalog.vendors import VENDORS

            known = (*VENDORS, *models.own_vendors)
            like = near(name, known)
            hint = f"did you mean {like!r}?" if like else f"known: {', '.join(known)}"
            raise CatalogFault(f"KIMI_GATEWAY_TOKENS_…: {name!r} is not a vendor; {hint}")
        if any(map(vendor.misnames, texts)):
            from kimi_gateway.catalog.faults import misnamed

            raise CatalogFault(f"KIMI_GATEWAY_TOKENS_…: {misnamed(vendor)}")


def _sane(row: Model, where: str) -> Model:
    if not 1 <= row.max_output <= row.refuse_output or row.window < 1 or row.upstream_default < 0:
        raise CatalogFault(f"{where}: {row.id} needs window >= 1 and 1 <= max_output <= refuse_output")
    if row.default_output is not None and not 1 <= row.default_output <= row.max_output:
        raise CatalogFault(f"{where}: default_output of {row.id} must lie between 1 and max_output")
    if not 0 <= row.credits <= MOST_CREDITS:
        raise CatalogFault(f"{where}: credits of {row.id} must lie between 0 and {MOST_CREDITS}")
    if not 0 <= row.picture <= row.window:
        raise CatalogFault(f"{where}: picture of {row.id} must lie between 0 and its window")
    price = row.price
    if price is not None and min(price.input, price.cached, price.output) < 0:
        raise CatalogFault(f"{where}: the price of {row.id} must not be negative")
    return row


@dataclass(frozen=True, slots=True)
class _Document:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    models: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    vendors: list[dict[str, Any]] = field(default_factory=list)


def own_vendors(entries: list[dict[str, Any]]) -> dict[str, Vendor]:
    """The operator's vendors by id. Raises CatalogFault."""
    if not entries:
        return {}
    from kimi_gateway.catalog import vendor_entries

    return vendor_entries.parsed(entries)


def _under(entry: dict[str, Any], where: str, rows: Mapping[str, Model], known: Catalog) -> dict[str, Any]:
    """The base values of an operator's row."""
    like = entry.pop("like", None)
    if not isinstance(entry.get("id"), str) or not entry["id"]:
        raise CatalogFault(f"{where}: id must be a name")
    if like is not None and (not isinstance(like, str) or like not in rows):
        raise CatalogFault(f"{where}: like names {like!r}, which is not a model")
    provider, upstream = entry.get("provider", PLATFORM), str(entry.get("upstream", entry["id"]))
    base: Model | None = rows[like] if like is not None else neutral(upstream)
    if provider not in {row.provider for row in rows.values()}:
        base = known.of_vendor(f"{provider}/{upstream}")
    if base is None:
        raise CatalogFault(f"{where}.provider: {provider!r} is not a vendor with a model {upstream!r}")
    values = dataclasses.asdict(base)
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}
