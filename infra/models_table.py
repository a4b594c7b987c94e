"""Writes the tables of models in docs/upstream.md and of vendors in docs/vendors.md: `scripts/models`. Tests
compare pages and rows."""

from __future__ import annotations

import re
from pathlib import Path

from kimi_gateway.catalog.models import ROWS, Model
from kimi_gateway.catalog.vendor import Vendor
from kimi_gateway.catalog.vendors import VENDORS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "upstream.md"
VENDORS_PAGE = PAGE.with_name("vendors.md")
VENDORS_HEADING = "## The vendors\n"
VENDORS_RULE = "|---|---|---|---|---|---|---|---|---|---|\n"
HEADING = "## Models\n"


def row(model: Model) -> str:
    sizes = [f"{size:,}" for size in (model.window, model.max_output, model.upstream_default)]
    price = model.price
    prices = ["", "", "", ""]
    if price is not None:
        prices = [f"{each:.2f}" for each in (price.input, price.cached, price.output)] + [price.source]
    return "| " + " | ".join([f"`{model.id}`", f"`{model.upstream}`", *sizes, *prices]) + " |"


def vendor_row(vendor: Vendor) -> str:
    models = ", ".join(f"`{model.id}`" for model in vendor.known)
    cells = [
        f"`{vendor.id}`",
        "<br>".join(f"{name}: `{base}`" for name, base in vendor.bases.items()),
        f"{vendor.checked}, {vendor.docs}",
        models if vendor.models else f"only {models}",
        f"{vendor.thinking}, `{vendor.reasoning}`",
        f"`{vendor.limit}`",
        vendor.schema or "in words",
        ", ".join(sorted(vendor.choices)) or "none known",
        ", ".join(sorted(vendor.media)) or "text only",
        ", ".join(f"`{name}`" for name in vendor.extra) or "–",
    ]
    return "| " + " | ".join(cells) + " |"


def filled(page: str, heading: str, rule: str, rows: list[str]) -> str:
    """The page with these rows in the table below a heading."""
    before, found, rest = page.partition(heading)
    intro, line, table = rest.partition(rule)
    if not line:
        raise ValueError(f"the page has no table below {heading.strip()!r}")
    behind = re.sub(r"\A(\|.*\n)*", "", table)
    return before + found + intro + line + "".join(f"{row}\n" for row in rows) + behind


def written(page: str) -> str:
    """The page of the upstream with the table of today's rows."""
    return filled(page, HEADING, "|--:|---|\n", [row(model) for model in ROWS])


def vendors_written(page: str) -> str:
    """The page of vendors with the table of today's rows."""
    return filled(page, VENDORS_HEADING, VENDORS_RULE, [vendor_row(vendor) for vendor in VENDORS.values()])


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    VENDORS_PAGE.write_text(vendors_written(VENDORS_PAGE.read_text("utf-8")), "utf-8")
