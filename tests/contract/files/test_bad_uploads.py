"""Uploads that are refused or broken off: the error says why, and nothing is left of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.error_shape import anthropic_error, openai_error
from support.live import LiveGateway
from support.uploading import ANTHROPIC, KIND, PURPOSE, form, left, upload
from support.wire import connect, head, rest_of, statuses
from upstream import ScriptedUpstream
from upstream.files import MOST_FILES
from upstream.steps import Status

HUGE = 100 * 2**20


def until(done: Callable[[], bool]) -> None:
    ends = time.monotonic() + 40
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.02)


# What is refused


BAD: dict[str, tuple[str, bytes, str]] = {
    "an empty file": (KIND, form(PURPOSE, ("file", "a", b"")), "File size is zero, please confirm"),
    "no file": (KIND, form(PURPOSE), "file: the form has no part"),
    "a file of another name": (KIND, form(PURPOSE, ("document", "a", b"x")), "file: the form has no part"),
    "two files": (KIND, form(PURPOSE, ("file", "a", b"x"), ("file", "b", b"y")), "one file only"),
    "two large files": (
        KIND, form(PURPOSE, ("file", "a", b"x" * 200_000), ("file", "b", b"y")), "one file only",
    ),
    "no purpose": (KIND, form(("file", "a", b"x")), "purpose: it is required"),
    "two purposes": (KIND, form(PURPOSE, PURPOSE, ("file", "a", b"x")), "purpose: it is given twice"),
    "a purpose that is not known": (
        KIND, form(("purpose", None, b"fine-tune"), ("file", "a", b"x")),
        "Invalid purpose: fine-tune, only file-extract|image|video|batch accepted",
    ),
    "a long purpose": (KIND, form(("purpose", None, b"x" * 9000), ("file", "a", b"x")), "too long"),
    "no boundary": ("multipart/form-data", form(PURPOSE, ("file", "a", b"x")), "boundary"),
    "no form": ("application/json", b"{}", "multipart/form-data"),
    "nothing": (KIND, b"", "ends before its last boundary"),
    "another boundary": ("multipart/form-data; boundary=yy", form(PURPOSE, ("file", "a", b"x")), "malformed"),
    "a cut form": (KIND, form(PURPOSE, ("file", "a", b"x"))[:-6], "ends before its last boundary"),
    "a cut large form": (KIND, form(PURPOSE, ("file", "a", b"x" * 200_000))[:-6], "ends before its last"),
    "many parts": (KIND, form(*[("n", None, b"")] * 40, PURPOSE, ("file", "a", b"x")), "more than 32 parts"),
    "a short life": (
        KIND, form(PURPOSE, ("expires_after[seconds]", None, b"60"), ("file", "a", b"x")), "between 3600 and",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_upload_is_400_and_leaves_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client, fault: str
) -> None:
    kind, body, words = BAD[fault]
    answer = client.post("/v1/files", content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text
    openai_error(answer.json())
    assert words in answer.json()["error"]["message"]
    if "purpose" not in fault and "life" not in fault:
        theirs = client.post("/v1/files", content=body, headers={"content-type": kind, **ANTHROPIC})
        anthropic_error(theirs.json())
    assert left(gateway, upstream, client) == (0, 0)


def test_a_file_above_the_platforms_size_is_413(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client
) -> None:
    """Before any of it is sent."""
    key = client.headers["authorization"]
    lines = ("host: x", f"content-type: {KIND}", f"authorization: {key}", f"content-length: {HUGE * 2}")
    with connect(gateway) as sending:
        sending.sendall(head("/v1/files", *lines, "connection: close"))
        answer = rest_of(sending)
    assert statuses(answer) == [413]
    assert left(gateway, upstream, client) == (0, 0)


def test_an_upload_that_is_broken_off_leaves_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client
) -> None:
    key = client.headers["authorization"]
    lines = ("host: x", f"content-type: {KIND}", f"authorization: {key}", "content-length: 500000")
    with connect(gateway) as sending:
        sending.sendall(head("/v1/files", *lines) + form(PURPOSE, ("file", "a", b"x" * 200_000))[:-8])
        until(lambda: left(gateway, upstream, client)[1] == 1)  # a record comes before the upload
    until(lambda: left(gateway, upstream, client) == (0, 0))


# The room of an account, and of the platform


def test_an_account_has_room_for_so_many_files(gateway: LiveGateway, client: httpx.Client) -> None:
    ids = [upload(client).json()["id"] for _ in range(5)]
    full = upload(client)
    assert full.status_code == 400
    assert full.json()["error"]["message"] == (
        "The number of files you have uploaded exceeded the max file count 5,"
        " please delete previous uploaded files"
    )
    client.delete(f"/v1/files/{ids[0]}")
    assert upload(client).status_code == 200


def test_a_full_account_of_the_vendor_says_what_to_do(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client
) -> None:
    """Nobody's kept file is deleted for it."""
    upstream.files.most = 2
    try:
        for _ in range(2):
            assert upload(client).status_code == 200
        with gateway.client(gateway.key()) as other:
            full = upload(other)
            assert full.status_code == 409
            assert "Delete files that you do not need" in openai_error(full.json())["message"]
            assert other.get("/v1/files").json()["data"] == []
        assert left(gateway, upstream, client) == (2, 2)
    finally:
        upstream.files.most = MOST_FILES


@pytest.mark.parametrize("declared", [True, False])
def test_an_account_has_room_for_so_many_bytes(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client, declared: bool
) -> None:
    assert upload(client, b"x" * 2_000_000).status_code == 200
    body = form(PURPOSE, ("file", "b", b"x" * 1_500_000))
    content = body if declared else iter([body])
    full = client.post("/v1/files", content=content, headers={"content-type": KIND})
    assert full.status_code == 400
    assert "please delete previous uploaded files" in full.json()["error"]["message"]
    assert left(gateway, upstream, client) == (1, 1)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_an_upload_that_the_platform_refuses_leaves_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client, status: int
) -> None:
    upstream.files.refused["POST"] = [Status(status, {"error": {"message": "No.", "type": ""}})]
    answer = upload(client)
    assert answer.status_code == {400: 400, 429: 429}.get(status, 503)
    openai_error(answer.json())
    assert left(gateway, upstream, client) == (0, 0)


def test_a_file_whose_deletion_fails_is_deleted_for_its_owner(
    gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client
) -> None:
    made = upload(client).json()["id"]
    upstream.files.refused["DELETE"] = [Status(500, {})]
    assert client.delete(f"/v1/files/{made}").json()["deleted"] is True
    assert client.get(f"/v1/files/{made}").status_code == 404
    assert left(gateway, upstream, client) == (1, 0)
    due = gateway.do(gateway.store.due_files(2**33, 10))
    assert made in [record.id for record in due]  # the sweep's work


def test_a_platform_that_lost_a_file_is_not_the_clients_fault(
    upstream: ScriptedUpstream, client: httpx.Client
) -> None:
    made = upload(client).json()["id"]
    upstream.files.files.clear()
    answer = client.get(f"/v1/files/{made}/content")
    assert answer.status_code == 404
    assert client.delete(f"/v1/files/{made}").status_code == 200


def test_the_demo_keeps_no_files(tmp_path: Path) -> None:
    with LiveGateway(tmp_path) as gateway, gateway.client(gateway.key()) as client:
        assert upload(client).status_code == 404
