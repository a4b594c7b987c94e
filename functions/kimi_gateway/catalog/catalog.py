"""Finds the model row for a client's name; adds the operator's own rows and aliases."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kimi_gateway.catalog.models import RETIRED, ROWS, Currency, Model, neutral
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_AGENT_ID = re.compile(r"[0-9a-z]{20}")


_MEMBERS = (
    "like",
    *(each.name for each in dataclasses.fields(Model)),
)  # members of a row in the operator's file


MOST_CREDITS = 1_000_000  # of one request


class CatalogFault(ValueError):
    """The operator's models file is wrong; the text names the place."""


class Catalog:
    """The built-in rows with the operator's rows and aliases. An alias may contain `*`; the first match
    wins."""

    def __init__(self, rows: Collection[Model] = ROWS, aliases: Mapping[str, str] | None = None) -> None:
        self.rows: dict[str, Model] = {row.id: row for row in rows}
        self.aliases = dict(aliases or {})
        for alias, target in self.aliases.items():
            if target not in self.rows:
                near = _near(target, self.rows)
                hint = f"; did you mean {near!r}?" if near else ""
                raise CatalogFault(f"aliases: {alias!r} points to {target!r}, which is not a model{hint}")

    def find(self, name: str) -> Model | None:
        """The row for an id or an alias, None if there is none."""
        if name in self.rows:
            return self.rows[name]
        for alias, target in self.aliases.items():
            if fnmatch.fnmatchcase(name, alias):
                return self.rows[target]
        return None

    def unknown(self, name: str, plain: str) -> ModelNotFound | InvalidRequest:
        """The error for a name without a row; `plain` is the name without its options. InvalidRequest for the
        id of an agent."""
        if _AGENT_ID.fullmatch(plain):
            return InvalidRequest("Agent ids are not models here. GET /v1/models lists them.", param="model")
        hint = "GET /v1/models lists them."
        if plain in RETIRED:
            day, instead = RETIRED[plain]
            hint = f"The vendor retired it on {day}; {instead} is the nearest."
        shown = name if len(name) <= 80 else name[:80] + "…"
        return ModelNotFound(f"The model {shown!r} does not exist. {hint}", param="model")


def currency_of(base_url: str) -> Currency:
    """The currency of the vendor's bills, by its address."""
    host = base_url.partition("://")[2].partition("/")[0].partition(":")[0]
    return "CNY" if host.endswith(".cn") else "USD"


def load(path: Path | None, currency: Currency = "USD") -> Catalog:
    """The catalog with the operator's file: `{"models": [{"id", "upstream", …}], "aliases": {"a-*": "id"}}`.

    A row takes missing values from the built-in row that it names as `like`, else from the neutral row.
    All rows get the `currency` of the vendor's bills. Raises CatalogFault.
    """
    catalog = _loaded(path)
    if currency != "USD":
        catalog.rows = {id: replace(row, currency=currency) for id, row in catalog.rows.items()}
    return catalog


def _loaded(path: Path | None) -> Catalog:
    if path is None:
        return Catalog()
    from pydantic import TypeAdapter, ValidationError  # only if there is a file to check

    try:
        document = TypeAdapter(_Document).validate_json(path.read_bytes())
        rows = {row.id: row for row in ROWS}
        for index, entry in enumerate(document.models):
            where = f"models[{index}]"
            values = _under(entry, where, rows) | entry
            try:
                row = TypeAdapter(Model).validate_json(json.dumps(values))
            except ValidationError as exc:
                raise CatalogFault(_told(exc, where, _MEMBERS)) from exc
            rows[row.id] = _sane(row, where)
        return Catalog(rows.values(), document.aliases)
    except ValidationError as exc:
        raise CatalogFault(f"{path}: {_told(exc, '', ['models', 'aliases'])}") from exc
    except OSError as exc:
        raise CatalogFault(f"{path} cannot be read: {exc.strerror}") from exc
    except CatalogFault as exc:
        raise CatalogFault(f"{path}: {exc}") from exc


def _told(error: ValidationError, where: str, names: Sequence[str]) -> str:
    """pydantic's findings as a text for the operator, each with its place."""
    return "; ".join(_finding(each, where, names) for each in error.errors(include_url=False)[:5])


def _finding(found: ErrorDetails, where: str, names: Sequence[str]) -> str:
    place = where
    for part in found["loc"]:
        place += f"{'.' if place else ''}{part}"
    match found["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            name = str(found["loc"][-1])
            near = _near(name, names)
            hint = f"; did you mean {json.dumps(near)}?" if near else f"; known: {', '.join(names)}"
            return f"{where + ': ' if where else ''}{json.dumps(name)} is unknown{hint}"
        case "json_invalid":
            return f"it is not JSON ({found['ctx']['error']})"
        case "missing" | "missing_argument":
            return f"{place} is missing"
        case _:
            message = found["msg"].removeprefix("Input ")
            return f"{place or 'the document'} {message}"


def _near(name: str, names: Iterable[str]) -> str | None:
    import difflib  # only for a wrong file

    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def _sane(row: Model, where: str) -> Model:
    if not 1 <= row.max_output <= row.refuse_output or row.window < 1 or row.upstream_default < 0:
        raise CatalogFault(f"{where}: {row.id} needs window >= 1 and 1 <= max_output <= refuse_output")
    if row.default_output is not None and not 1 <= row.default_output <= row.max_output:
        raise CatalogFault(f"{where}: default_output of {row.id} must lie between 1 and max_output")
    if not 0 <= row.credits <= MOST_CREDITS:
        raise CatalogFault(f"{where}: credits of {row.id} must lie between 0 and {MOST_CREDITS}")
    price = row.price
    if price is not None and min(price.input, price.cached, price.output) < 0:
        raise CatalogFault(f"{where}: the price of {row.id} must not be negative")
    return row


@dataclass(frozen=True, slots=True)
class _Document:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    models: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)


def _under(entry: dict[str, Any], where: str, rows: Mapping[str, Model]) -> dict[str, Any]:
    """The base values of an operator's row."""
    like = entry.pop("like", None)
    if not isinstance(entry.get("id"), str) or not entry["id"]:
        raise CatalogFault(f"{where}: id must be a name")
    if like is not None and (not isinstance(like, str) or like not in rows):
        raise CatalogFault(f"{where}: like names {like!r}, which is not a model")
    base = rows[like] if like is not None else neutral(str(entry.get("upstream", entry["id"])))
    values = dataclasses.asdict(base)
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}
