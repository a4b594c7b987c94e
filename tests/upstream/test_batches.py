"""The emulated platform's files and batches, as tests that share an emulator need them."""

from __future__ import annotations

import httpx

from support.tls import NO_TLS
from upstream import ScriptedUpstream
from upstream.batches import lines


def uploaded(client: httpx.Client) -> str:
    done = client.post("/files", files={"file": ("in.jsonl", lines())}, data={"purpose": "batch"})
    return str(done.json()["id"])


def created(client: httpx.Client, file: str) -> str:
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str(client.post("/batches", json=body).json()["id"])


def test_a_late_deletion_of_an_earlier_test_meets_no_new_file(up: ScriptedUpstream) -> None:
    with httpx.Client(base_url=up.url, trust_env=False, verify=NO_TLS) as client:
        file = uploaded(client)
        batch = created(client, file)
        up.forget()
        new = uploaded(client)
        assert (new == file, created(client, new) == batch) == (False, False)
        assert client.delete(f"/files/{file}").status_code == 404
        assert list(up.files.files) == [new]


def test_a_batch_runs_to_its_end_though_its_input_is_deleted(up: ScriptedUpstream) -> None:
    with httpx.Client(base_url=up.url, trust_env=False, verify=NO_TLS) as client:
        file = uploaded(client)
        batch = created(client, file)
        assert client.delete(f"/files/{file}").status_code == 200
        up.batches.run()
        assert client.get(f"/batches/{batch}").json()["status"] == "completed"
