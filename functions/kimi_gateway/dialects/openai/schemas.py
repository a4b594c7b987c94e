"""Schemas of tools and answers in the vendor's dialect; one that is in it already stays the very object."""

from __future__ import annotations

import marshal
from functools import lru_cache
from typing import Any

from kimi_gateway.dialects.fields import fail
from kimi_gateway.dialects.openai.schema_cleaner import Cleaner
from kimi_gateway.errors import InvalidRequest

REMEMBERED = 256  # schemas; those of a client's tools come with each of its requests
LARGEST_REMEMBERED = 16_384  # bytes


def clean(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """Says the same in the vendor's keywords, or more loosely with the rest in words. Nobody may change the
    result. Raises InvalidRequest with the place, below `where`, of what is no schema, points outside, or
    cannot be satisfied."""
    key = marshal.dumps(schema, 2)  # the quickest bytes that are the same for the same values
    try:
        cleaned = _known(key) if len(key) <= LARGEST_REMEMBERED else _cleaned(schema)
    except RecursionError:
        fail(where, "refers from one part to the next too deeply")
    except InvalidRequest as exc:
        param = f"{where}{exc.param}"
        raise InvalidRequest(f"{param}{exc.message.removeprefix(str(exc.param))}", param=param) from exc
    return schema if cleaned is None else cleaned


@lru_cache(maxsize=REMEMBERED)
def _known(key: bytes) -> dict[str, Any] | None:
    return _cleaned(marshal.loads(key))  # noqa: S302 (dumped a moment ago, above)


def _cleaned(schema: dict[str, Any]) -> dict[str, Any] | None:
    """None where there was nothing to do."""
    cleaned = Cleaner(schema).cleaned()
    return None if cleaned == schema else cleaned
