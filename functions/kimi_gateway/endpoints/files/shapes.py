"""File objects and lists as the clients of each API read them. Which API a request speaks is decided by
`dialects.errors.dialect_of`, so that answers and errors agree.

Ids sort by their time of creation, so a page's cursor is an id and stays good when its file is deleted.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from kimi_gateway.accounts.files import FileRecord, State
from kimi_gateway.accounts.values import NEVER
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.http import Query

Json = dict[str, Any]
# The SDKs' waiters end on `processed`, `error` and `deleted` only (openai 3.57, 2026-11).
_STATUS: dict[State, str] = {"uploading": "uploaded", "ready": "processed", "failed": "error"}
MOST_IDS = 100


class Shape(Protocol):
    def file(self, record: FileRecord) -> Json: ...

    def deleted(self, id: str) -> Json: ...

    def page(self, records: list[FileRecord], query: Query) -> Json:
        """One page of an account's files, which come in the order of creation. Raises InvalidRequest."""
        ...


class OpenAi:
    """OpenAI's shape, which is the platform's too."""

    def file(self, record: FileRecord) -> Json:
        return {
            "id": record.id,
            "object": "file",
            "bytes": record.size,
            "created_at": record.created,
            "filename": record.filename,
            "purpose": record.purpose or "user_data",
            "status": _STATUS.get(record.state, "deleted"),
            "status_details": record.detail or None,
            "expires_at": record.expires if _expires(record) else None,
        }

    def deleted(self, id: str) -> Json:
        return {"id": id, "object": "file", "deleted": True}

    def page(self, records: list[FileRecord], query: Query) -> Json:
        order, purpose, after = query.get("order", "desc"), query.get("purpose"), query.get("after")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order: must be asc or desc.", param="order")
        if purpose:
            records = [each for each in records if (each.purpose or "user_data") == purpose]
        if order == "desc":
            records = records[::-1]
        if after:
            records = [each for each in records if (each.id > after if order == "asc" else each.id < after)]
        shown, more = _cut(records, _limit(query, 10_000, 10_000))
        return {"object": "list", "data": list(map(self.file, shown)), "has_more": more, **_ends(shown)}


class Anthropic:
    """Anthropic's shape: the SDK's `files` (2.14, 2026-11), and the members that older ones page by."""

    def file(self, record: FileRecord) -> Json:
        return {
            "type": "file",
            "id": record.id,
            "filename": record.filename,
            "mime_type": record.media_type,
            "size_bytes": record.size,
            "created_at": _rfc3339(record.created),
            "downloadable": False,
            "expires_at": _rfc3339(record.expires) if _expires(record) else None,
        }

    def deleted(self, id: str) -> Json:
        return {"id": id, "type": "file_deleted"}

    def page(self, records: list[FileRecord], query: Query) -> Json:
        ids = set(query.all("ids[]") + query.all("ids"))
        if len(ids) > MOST_IDS:
            raise InvalidRequest(f"ids: at most {MOST_IDS} are allowed.", param="ids")
        newest = records[::-1]
        if ids:
            named = [each for each in newest if each.id in ids]
            return self._page(named, False)
        after = query.get("page").removeprefix("page_") or query.get("after_id")
        limit = _limit(query, 20, 1_000)
        if before := query.get("before_id"):
            newer = [each for each in newest if each.id > before]
            return self._page(newer[-limit:], len(newer) > limit)
        shown, more = _cut([each for each in newest if not after or each.id < after], limit)
        return self._page(shown, more)

    def _page(self, shown: list[FileRecord], more: bool) -> Json:
        next_page = f"page_{shown[-1].id}" if more else None
        return {
            "data": list(map(self.file, shown)), "has_more": more, "next_page": next_page, **_ends(shown)
        }  # fmt: skip


def _expires(record: FileRecord) -> bool:
    """Whether it has an end that a client set; that of an upload which still runs is the gateway's own."""
    return record.expires < NEVER and record.state != "uploading"


def _cut(records: list[FileRecord], limit: int) -> tuple[list[FileRecord], bool]:
    return records[:limit], len(records) > limit


def _ends(shown: list[FileRecord]) -> Json:
    return {"first_id": shown[0].id if shown else None, "last_id": shown[-1].id if shown else None}


def _limit(query: Query, default: int, most: int) -> int:
    text = query.get("limit")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit: must be between 1 and {most}.", param="limit")
    return int(text)


def _rfc3339(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
