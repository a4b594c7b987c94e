"""The platform's batches: what it takes, its states, and its own refusals. Facts: docs/upstream.md.

A batch goes on when a test says so: `run` answers all requests of the running ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from upstream import kimi
from upstream.files import Asked, File, FileStore
from upstream.steps import Status

PATH = "/v1/batches"
MODELS = ("kimi-k2.6", "kimi-k2.7-code")  # the platform's batches know no others
SAMPLING = ("temperature", "top_p", "n", "presence_penalty", "frequency_penalty")
RUNNING = ("validating", "in_progress", "finalizing", "cancelling")

Json = dict[str, Any]


@dataclass
class Batch:
    id: str
    token: str | None
    input: str
    window: str
    metadata: Json | None
    status: str = "validating"
    output: str | None = None
    errors: str | None = None
    lines: list[Json] = field(default_factory=list)  # of its input, which may be deleted while it runs
    faults: list[Json] = field(default_factory=list)
    counts: Json = field(default_factory=lambda: {"total": 0, "completed": 0, "failed": 0})

    def told(self) -> Json:
        times = (
            "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
            "cancelling_at", "cancelled_at",
        )  # fmt: skip
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.input,
            "completion_window": self.window,
            "status": self.status,
            "output_file_id": self.output,
            "error_file_id": self.errors,
            "created_at": kimi.CREATED,
            **{name: kimi.CREATED if name == f"{self.status}_at" else None for name in times},
            "request_counts": self.counts,
            "metadata": self.metadata,
            "errors": {"object": "list", "data": self.faults} if self.faults else None,
            "organization_id": "org-of-the-operator",
        }


@dataclass
class BatchStore:
    """Batches by account, that is by token. `lost`: creations that happen, and are answered as by an edge
    that lost the answer. `refused` answers the next requests, while there are any."""

    files: FileStore
    batches: dict[str, Batch] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=partial(count, 1))
    created: int = 0
    lost: int = 0
    refused: list[Status] = field(default_factory=list)
    page: int = 2  # of a list; a small one, so that searches have to turn it

    def answer(self, request: Asked) -> Status:
        if self.refused:
            return self.refused.pop(0)
        mine = [batch for batch in reversed(self.batches.values()) if batch.token == request.token]
        if request.path == PATH and request.method == "POST":
            return self._create(request)
        if request.path == PATH:
            after = re.search(r"after=([\w-]+)", request.query)
            if after is not None:
                ids = [batch.id for batch in mine]
                mine = mine[ids.index(after[1]) + 1 :]
            shown = [batch.told() for batch in mine[: self.page]]
            return Status(200, {"object": "list", "data": shown, "has_more": len(mine) > self.page})
        id, _, rest = request.path.removeprefix(PATH + "/").partition("/")
        batch = self.batches.get(id)
        if batch is None or batch.token != request.token:
            return Status(404, kimi.error("resource_not_found_error", f"batch {id} not found"))
        if rest == "cancel" and request.method == "POST":
            if batch.status not in ("validating", "in_progress"):
                return _invalid(f"batch {id} with status {batch.status} cannot be cancelled")
            batch.status = "cancelling"
        return Status(200, batch.told())

    def _create(self, request: Asked) -> Status:
        try:
            body = json.loads(request.raw)
        except ValueError:
            return _invalid("Invalid request: not a JSON object")
        file = self.files.files.get(str(body.get("input_file_id")))
        if file is None or file.token != request.token:
            return Status(404, kimi.error("resource_not_found_error", "input file not found"))
        if file.purpose != "batch":
            return _invalid("input file must have purpose batch")
        if body.get("endpoint") != "/v1/chat/completions":
            return _invalid("Invalid endpoint")
        self.created += 1
        batch = Batch(
            f"batch-up-{next(self.ids):04d}", request.token, file.id, str(body["completion_window"]),
            body.get("metadata"),
        )  # fmt: skip
        self.batches[batch.id] = batch
        self._validate(batch, file)
        if self.lost:
            self.lost -= 1
            return Status(502, "<html>Bad Gateway</html>")
        return Status(200, batch.told())

    def _validate(self, batch: Batch, file: File) -> None:
        """Faults of the lines end the batch, though it was created."""
        models, ids = set(), []
        batch.lines = [json.loads(line) for line in file.data.decode().splitlines()]
        for number, line in enumerate(batch.lines, 1):
            body = line["body"]
            models.add(body["model"])
            ids.append(line["custom_id"])
            if body["model"] not in MODELS:
                self._fault(batch, number, "model", f"model {body['model']} of {batch.input} has no batches")
            elif sampling := [name for name in SAMPLING if name in body]:
                self._fault(batch, number, sampling[0], f"{sampling[0]} is not allowed")
        if len(models) > 1:
            self._fault(batch, None, "model", "all requests must use one model")
        if len(set(ids)) < len(ids):
            self._fault(batch, None, "custom_id", "custom_id is not unique")
        batch.counts["total"] = len(ids)
        batch.status = "failed" if batch.faults else "in_progress"

    def _fault(self, batch: Batch, line: int | None, param: str, message: str) -> None:
        batch.faults.append({"code": "invalid_request", "message": message, "param": param, "line": line})

    def run(self, prompt: int = 1000, completion: int = 100, failures: int = 0) -> None:
        """Answer all requests of running batches, the first `failures` of each with an error. A cancelled
        batch keeps what was answered: here the first request."""
        for batch in self.batches.values():
            if batch.status not in RUNNING:
                continue
            lines = batch.lines[:1] if batch.status == "cancelling" else batch.lines
            good = [_answered(line, prompt, completion) for line in lines[failures:]]
            bad = [_refused(line) for line in lines[:failures]]
            batch.output, batch.errors = self._made(batch, "output", good), self._made(batch, "error", bad)
            batch.counts = {"total": batch.counts["total"], "completed": len(good), "failed": len(bad)}
            batch.status = "cancelled" if batch.status == "cancelling" else "completed"

    def _made(self, batch: Batch, role: str, lines: list[Json]) -> str | None:
        if not lines:
            return None
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        file = File(f"file_{role}_{batch.id}", batch.token, f"{role}.jsonl", "", "batch_output", data)
        self.files.files[file.id] = file
        return file.id


def _answered(line: Json, prompt: int, completion: int) -> Json:
    model = line["body"]["model"]
    body = kimi.completion(usage=kimi.usage_of(prompt, completion, prompt // 2), model=model)
    response = {"status_code": 200, "request_id": "req", "body": body}
    return {"id": "batch_req_1", "custom_id": line["custom_id"], "response": response, "error": None}


def _refused(line: Json) -> Json:
    error = kimi.error("invalid_request_error", "too long")
    response = {"status_code": 400, "request_id": "req", "body": error}
    return {"id": "batch_req_2", "custom_id": line["custom_id"], "response": response, "error": None}


def _invalid(message: str) -> Status:
    return Status(400, kimi.error("invalid_request_error", message))


def lines(count: int = 3, model: str = "kimi-k2.6", **body: Any) -> bytes:
    """An input file."""
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **body}
    return b"".join(
        json.dumps(
            {"custom_id": f"a{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}
        ).encode()
        + b"\n"
        for number in range(count)
    )
