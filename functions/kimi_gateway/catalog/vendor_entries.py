"""The operator's vendors in the file of KIMI_GATEWAY_MODELS: checked, and completed from a row like them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from kimi_gateway.catalog import kimi_web
from kimi_gateway.catalog.faults import told
from kimi_gateway.catalog.models import CatalogFault
from kimi_gateway.catalog.vendor import NAME, Vendor
from kimi_gateway.catalog.vendors import VENDORS

RESERVED = frozenset(("moonshot", "demo", "kimi"))
LIKE = {**VENDORS, kimi_web.ROW.id: kimi_web.ROW}
_MEMBERS = ("like", *(each.name for each in dataclasses.fields(Vendor)))


def parsed(entries: list[dict[str, Any]]) -> dict[str, Vendor]:
    """A row takes missing values from the built-in row that it names as `like`. `bases` may be one address.
    Raises CatalogFault."""
    adapter, found = TypeAdapter(Vendor), dict[str, Vendor]()
    for index, entry in enumerate(entries):
        where = f"vendors[{index}]"
        values = {**_under(entry.pop("like", None), where), **entry}
        if isinstance(values.get("bases"), str):
            values["bases"] = {"default": values["bases"]}
        try:
            vendor = adapter.validate_json(json.dumps(values))
        except ValidationError as exc:
            raise CatalogFault(told(exc, where, _MEMBERS)) from exc
        found[vendor.id] = _sane(vendor, where)
    return found


def _under(like: object, where: str) -> dict[str, Any]:
    if like is None:
        return {}
    if not isinstance(like, str) or like not in LIKE:
        raise CatalogFault(f"{where}: like names {like!r}; known: {', '.join(LIKE)}")
    values = _plain(dataclasses.asdict(LIKE[like]))
    assert isinstance(values, dict)  # noqa: S101  it was a dataclass
    return values


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _sane(vendor: Vendor, where: str) -> Vendor:
    if not NAME.fullmatch(vendor.id) or vendor.id in RESERVED:
        raise CatalogFault(
            f"{where}: id must be lower-case letters, digits and -, and none of the gateway's own"
        )
    if not vendor.bases:
        raise CatalogFault(f"{where}: bases is empty")
    for base in vendor.bases.values():
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise CatalogFault(f"{where}: bases must be http(s) addresses without a user or a query")
    if not vendor.models and not vendor.known:
        raise CatalogFault(f"{where}: without a path of a model list it needs known models")
    for model in vendor.known:
        if model.base and model.base not in vendor.bases:
            raise CatalogFault(f"{where}: {model.id} names the base {model.base!r}, which is not in bases")
    try:
        vendor.age(date.min)
    except ValueError:
        raise CatalogFault(f"{where}: checked must be a day such as 2026-11-28") from None
    return vendor
