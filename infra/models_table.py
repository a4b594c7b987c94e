"""Writes the table of models in docs/upstream.md: `scripts/models`. A test compares page and rows."""

from __future__ import annotations

import re
from pathlib import Path

from kimi_gateway.catalog.models import ROWS, Model

PAGE = Path(__file__).resolve().parents[1] / "docs" / "upstream.md"
HEADING = "## Models\n"


def row(model: Model) -> str:
    sizes = [f"{size:,}" for size in (model.window, model.max_output, model.upstream_default)]
    price = model.price
    prices = ["", "", "", ""]
    if price is not None:
        prices = [f"{each:.2f}" for each in (price.input, price.cached, price.output)] + [price.source]
    return "| " + " | ".join([f"`{model.id}`", f"`{model.upstream}`", *sizes, *prices]) + " |"


def written(page: str) -> str:
    """The page with the table of today's rows."""
    before, heading, rest = page.partition(HEADING)
    intro, rule, table = rest.partition("|--:|---|\n")
    if not rule:
        raise ValueError(f"{PAGE.name} has no table of models")
    behind = re.sub(r"\A(\|.*\n)*", "", table)
    return before + heading + intro + rule + "".join(f"{row(model)}\n" for model in ROWS) + behind


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
