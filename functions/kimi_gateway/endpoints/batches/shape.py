"""Batches and lists of them in OpenAI's shape, which is the platform's too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kimi_gateway.accounts.batches import BatchRecord
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.http import Query
from kimi_gateway.providers.batches import ENDPOINT

Json = dict[str, Any]
MOST_SHOWN = 100
_TIMES = (
    "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
    "cancelling_at", "cancelled_at",
)  # fmt: skip
_NO_COUNTS = {"total": 0, "completed": 0, "failed": 0}


def batch(record: BatchRecord) -> Json:
    state = record.state
    return {
        "id": record.id,
        "object": "batch",
        "endpoint": ENDPOINT,
        "errors": state.get("errors"),
        "input_file_id": record.input,
        "completion_window": record.window,
        "status": state.get("status", "validating"),
        "output_file_id": record.output or None,
        "error_file_id": record.errors or None,
        "created_at": record.created,
        **{name: state.get(name) for name in _TIMES},
        "request_counts": state.get("request_counts", _NO_COUNTS),
        "metadata": json.loads(record.metadata),
        **({"model": state["model"]} if "model" in state else {}),
        **({"usage": _usage(state["usage"])} if "usage" in state else {}),
    }


def _usage(counts: Json) -> Json:
    return {
        "input_tokens": counts["input_tokens"],
        "input_tokens_details": {"cached_tokens": counts["cached_tokens"]},
        "output_tokens": counts["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["input_tokens"] + counts["output_tokens"],
    }


def cut(records: Sequence[BatchRecord], query: Query) -> tuple[list[BatchRecord], bool]:
    """One page, the newest first, and whether there are more. Raises InvalidRequest."""
    text, after = query.get("limit") or "20", query.get("after")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_SHOWN):
        raise InvalidRequest(f"limit: must be between 1 and {MOST_SHOWN}.", param="limit")
    found = [each for each in reversed(records) if not after or each.id < after]
    return found[: int(text)], len(found) > int(text)


def page(shown: Sequence[BatchRecord], more: bool) -> Json:
    ends = (
        {"first_id": shown[0].id, "last_id": shown[-1].id} if shown else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": list(map(batch, shown)), "has_more": more, **ends}
