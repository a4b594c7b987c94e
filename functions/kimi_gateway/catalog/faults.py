"""Faults of the operator's models file, worded for the operator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from kimi_gateway.catalog.vendor import Vendor


def told(error: ValidationError, where: str, names: Sequence[str]) -> str:
    """pydantic's findings as a text for the operator, each with its place."""
    return "; ".join(_finding(each, where, names) for each in error.errors(include_url=False)[:5])


def _finding(found: ErrorDetails, where: str, names: Sequence[str]) -> str:
    place = where
    for part in found["loc"]:
        place += f"{'.' if place else ''}{part}"
    match found["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            name = str(found["loc"][-1])
            like = near(name, names)
            hint = f"; did you mean {json.dumps(like)}?" if like else f"; known: {', '.join(names)}"
            return f"{where + ': ' if where else ''}{json.dumps(name)} is unknown{hint}"
        case "json_invalid":
            return f"it is not JSON ({found['ctx']['error']})"
        case "missing" | "missing_argument":
            return f"{place} is missing"
        case _:
            message = found["msg"].removeprefix("Input ")
            return f"{place or 'the document'} {message}"


def misnamed(vendor: Vendor) -> str:
    """Why tokens are refused that name no address of the vendor. Quotes none of them."""
    names = ", ".join(vendor.bases)
    return (
        f"a token of {vendor.id} begins with a name and '=', or is a name alone; the addresses of"
        f" {vendor.id} are: {names}"
    )


def near(name: str, names: Iterable[str]) -> str | None:
    import difflib  # only for a wrong file

    return next(iter(difflib.get_close_matches(name, names, n=1)), None)
