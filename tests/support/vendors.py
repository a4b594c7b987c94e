"""A gateway whose vendors are at the tests' upstream: the built-in rows, at other addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.live import LiveGateway
from upstream import ScriptedUpstream
from upstream import vendors as emulated
from upstream.vendors import WAYS, address, token_of


def rows(up: ScriptedUpstream) -> list[dict[str, Any]]:
    """The operator's file: each row as built in, but for its addresses."""
    return [
        {"id": vendor, "like": vendor, "bases": {base: address(up, vendor, base) for base in ways.bases}}
        for vendor, ways in WAYS.items()
    ]


def tokens() -> Mapping[str, tuple[str, ...]]:
    """The first address needs no name before its token."""
    found = {}
    for vendor, ways in WAYS.items():
        first, *others = ways.bases
        named = [f"{base}={token_of(vendor, base)}" for base in others] if vendor == "spark" else []
        found[vendor] = (token_of(vendor, first), *named)
    return found


@contextmanager
def with_vendors(up: ScriptedUpstream, folder: Path, **more: Any) -> Iterator[LiveGateway]:
    emulated.serve(up)
    document = {"vendors": rows(up), **more.pop("document", {})}
    file = folder / "models.json"
    file.write_text(json.dumps(document))
    given = {"models": file, "vendor_tokens": tokens(), **more}
    with LiveGateway(folder, up.url, **given) as gateway:
        yield gateway
