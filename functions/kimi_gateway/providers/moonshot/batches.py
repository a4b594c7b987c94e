"""The platform's batches. Facts: docs/upstream.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kimi_gateway.net import http, jsonio
from kimi_gateway.observe import redact
from kimi_gateway.providers import failures
from kimi_gateway.providers.batches import ENDED, ENDPOINT, Status, UpstreamBatch
from kimi_gateway.providers.failures import UpstreamFailure, lost
from kimi_gateway.providers.provider import Token

LONGEST_ANSWER = 4 * 2**20  # bytes
PATIENCE = 25.0  # seconds for an answer; below the time of a buffered Lambda function
TAG = "gateway_batch"  # the name of our own pair in a batch's metadata
PAGES, PAGE = 5, 100  # batches that are searched for a tag
MOST_FAULTS = 50
_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
_TIMES = (
    "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
    "cancelling_at", "cancelled_at",
)  # fmt: skip
_COUNTS = ("total", "completed", "failed")


class MoonshotBatches:
    """`base_url` as for chat."""

    def __init__(self, client: http.Client, base_url: str, connect: float) -> None:
        self._client = client
        self._base = base_url
        self._patience = http.Timeouts(min(connect, PATIENCE), PATIENCE)

    async def create(self, token: Token, file: str, window: str, tag: str) -> UpstreamBatch:
        body = {
            "input_file_id": file,
            "endpoint": ENDPOINT,
            "completion_window": window,
            "metadata": {TAG: tag},
        }
        return _batch(await self._asked("POST", "/batches", token, body))

    async def get(self, token: Token, id: str) -> UpstreamBatch | None:
        try:
            return _batch(await self._asked("GET", f"/batches/{quote(id, safe='')}", token))
        except UpstreamFailure as failure:
            if failure.cause == "model":  # the platform's 404
                return None
            raise

    async def cancel(self, token: Token, id: str) -> UpstreamBatch:
        return _batch(await self._asked("POST", f"/batches/{quote(id, safe='')}/cancel", token))

    async def tagged(self, token: Token, tag: str) -> UpstreamBatch | None:
        after = ""
        for _ in range(PAGES):
            query = f"?limit={PAGE}" + (f"&after={quote(after, safe='')}" if after else "")
            listed = await self._asked("GET", f"/batches{query}", token)
            data = listed.get("data")
            if not isinstance(data, list):
                raise UpstreamFailure("broken", "the list of batches has no data")
            found = [_batch(each) for each in data if isinstance(each, dict)]
            for each in found:
                if each.tag == tag:
                    return each
            if not found or listed.get("has_more") is not True or found[-1].id == after:
                return None
            after = found[-1].id
        return None

    async def _asked(
        self, method: str, path: str, token: Token, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {token.secret}"}
        sent = b""
        if body is not None:
            sent, headers["content-type"] = jsonio.dumps(body), "application/json"
        try:
            sending = self._client.send(method, self._base + path, headers, sent, self._patience)
            async with sending as answer:
                text = await answer.read(LONGEST_ANSWER)
        except http.NetError as exc:
            raise lost(exc) from exc
        if not 200 <= answer.status < 300:
            raise failures.from_answer(answer.status, answer.headers, text)
        try:
            parsed = jsonio.loads(text)
        except (ValueError, RecursionError) as exc:
            raise UpstreamFailure("broken", "an answer that is not JSON") from exc
        if not isinstance(parsed, dict):
            raise UpstreamFailure("broken", "an answer that is not an object")
        return parsed


def _batch(told: Mapping[str, Any]) -> UpstreamBatch:
    """The members of an answer that may be shown; unknown ones are left out."""
    id, status = _id(told.get("id")), _status(told.get("status"))
    if not id or status is None:
        raise UpstreamFailure("broken", "a batch without an id or with an unknown status")
    metadata = told.get("metadata")
    tag = metadata.get(TAG) if isinstance(metadata, dict) else None
    kept: dict[str, Any] = {name: _count(told.get(name)) for name in _TIMES if _count(told.get(name))}
    counts = told.get("request_counts")
    if isinstance(counts, dict):
        kept["request_counts"] = {name: _count(counts.get(name)) for name in _COUNTS}
    if usage := _usage(told.get("usage")):
        kept["usage"] = usage
    if model := _text(told.get("model"))[:80]:
        kept["model"] = model
    output, errors = _id(told.get("output_file_id")), _id(told.get("error_file_id"))
    hidden = (id, _id(told.get("input_file_id")), output, errors)
    if faults := _faults(told.get("errors"), [each for each in hidden if each]):
        kept["errors"] = {"object": "list", "data": faults}
    return UpstreamBatch(id, status, kept, output, errors, tag if isinstance(tag, str) else "")


def _status(value: Any) -> Status | None:
    return value if isinstance(value, str) and value in ENDED + _RUNNING else None  # type: ignore[return-value]


def _id(value: Any) -> str:
    good = isinstance(value, str) and len(value) <= 200 and value.isascii() and value.isprintable()
    return value if good else ""


def _count(value: Any) -> int:
    return min(value, 2**53) if type(value) is int and value > 0 else 0


def _usage(told: Any) -> dict[str, Any]:
    """The use of all requests together, which newer batches of OpenAI's shape have."""
    if not isinstance(told, dict):
        return {}
    details = told.get("input_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    counts = {name: _count(told.get(name)) for name in ("input_tokens", "output_tokens")}
    return {**counts, "cached_tokens": cached} if any(counts.values()) else {}


def _faults(told: Any, hidden: list[str]) -> list[dict[str, Any]]:
    """Why a batch failed. The provider's ids in the texts are replaced."""
    data = told.get("data") if isinstance(told, dict) else None
    found = []
    for each in data[:MOST_FAULTS] if isinstance(data, list) else ():
        if not isinstance(each, dict):
            continue
        message = _text(each.get("message"))
        for id in hidden:
            message = message.replace(id, "of the batch")
        line = each.get("line")
        found.append(
            {
                "code": _text(each.get("code")) or None,
                "message": redact(message),
                "param": _text(each.get("param")) or None,
                "line": line if type(line) is int else None,
            }
        )
    return found


def _text(value: Any) -> str:
    return value[:500] if isinstance(value, str) else ""
