"""The hourly sweep of the function `Files`, on its runtime."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from contract.edges.test_lambda_gateway import Deployed, answered
from kimi_gateway.accounts.files import FileRecord, Room, file_id
from kimi_gateway.providers.provider import Token
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from kimi_gateway.storage.sqlite.store import SqliteStore
from upstream import ScriptedUpstream
from upstream.batches import lines
from upstream.files import File

SCHEDULED = {
    "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event",
    "source": "aws.events", "account": "123456789012", "time": "2026-11-28T18:00:00Z",
    "region": "eu-central-1", "resources": ["arn:aws:events:eu-central-1:123456789012:rule/sweep"],
    "detail": {},
}  # fmt: skip
SECRET = "sk-upstream-1"
TOKEN = Token.of(SECRET).id


def test_it_deletes_abandoned_files_and_books_batches(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A file of a turn whose process died, and a batch that nobody asks for."""
    now = int(time.time())
    dead = FileRecord(file_id(now), "", TOKEN, "passing", now - 900, now - 200, "ready", "file_1")
    kept = replace(
        dead, id=file_id(now), kind="kept", expires=now + 900, upstream="file_2", uploaded_as="batch"
    )
    upstream.files.files["file_1"] = File("file_1", SECRET, f"{dead.id}.png", "", "image", b"x")
    upstream.files.files["file_2"] = File("file_2", SECRET, "in.jsonl", "", "batch", lines())
    with Deployed(tmp_path, upstream.url, "handlers.files.handler", KIMI_GATEWAY_BATCHES="on") as deployed:
        key = deployed.key(None)
        account = deployed.account(key).id

        async def write(store: SqliteStore) -> None:
            for record in (dead, kept):
                await store.add_file(replace(record, account=account), Room())

        deployed._store(write)
        body = {
            "input_file_id": kept.id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        made = answered(deployed.send("POST", "/v1/batches", key, body))
        assert made.status == 200, made.body
        upstream.batches.run()
        with closing(sqlite3.connect(deployed.settings.data / STORE_NAME)) as db:
            db.execute("UPDATE batches SET due = 0")
            db.commit()

        assert deployed.api.invoke(SCHEDULED).answer().json == {}
        (batch,) = upstream.batches.batches.values()
        assert list(upstream.files.files) == ["file_2", batch.output]
        (row,) = deployed._store(lambda store: store.usage(0, account))
        assert (row.input, row.output) == (3000, 300)


def test_other_functions_do_not_sweep(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with Deployed(tmp_path, upstream.url, "handlers.models.handler") as deployed:
        assert deployed.api.invoke(SCHEDULED).answer().json["statusCode"] == 400
