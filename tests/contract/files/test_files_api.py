"""The Files API on a socket: two shapes, two accounts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from support.error_shape import anthropic_error
from support.live import LiveGateway
from support.uploading import ANTHROPIC, upload
from support.wire import connect, head, rest_of, statuses
from upstream import ScriptedUpstream

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
MP4 = b"\0\0\0\x18ftypisom" + b"\0" * 100
HUGE = 100 * 2**20


# What is served


def test_an_uploaded_file_is_listed_read_and_deleted(
    client: httpx.Client, upstream: ScriptedUpstream
) -> None:
    made = upload(client, b"Hello Kimi", "my notes.txt").json()
    assert made == {
        "id": made["id"], "object": "file", "bytes": 10, "created_at": made["created_at"],
        "filename": "my notes.txt", "purpose": "file-extract", "status": "processed",
        "status_details": None, "expires_at": None,
    }  # fmt: skip
    assert re.fullmatch(r"file-[a-z0-9]{16,}", made["id"])
    (kept,) = upstream.files.files.values()
    assert (kept.data, kept.purpose) == (b"Hello Kimi", "file-extract")
    assert client.get(f"/v1/files/{made['id']}").json() == made
    listed = client.get("/v1/files").json()
    assert listed == {
        "object": "list", "data": [made], "has_more": False, "first_id": made["id"], "last_id": made["id"]
    }  # fmt: skip
    text = client.get(f"/v1/files/{made['id']}/content")
    assert (text.status_code, json.loads(text.text)["content"]) == (200, "Hello Kimi")
    assert json.loads(text.text)["filename"].endswith("my notes.txt")
    gone = client.delete(f"/v1/files/{made['id']}")
    assert gone.json() == {"id": made["id"], "object": "file", "deleted": True}
    assert upstream.files.files == {}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert client.request(method, f"/v1/files/{made['id']}{path}").status_code == 404


@pytest.mark.parametrize(
    ("path", "headers"), [("/v1/files", ANTHROPIC), ("/anthropic/v1/files", {}), ("/api/v1/files", ANTHROPIC)]
)
def test_an_anthropic_client_gets_anthropics_shape(
    client: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    made = client.post(path, files={"file": ("a.pdf", b"%PDF-1.7")}, headers=headers).json()
    assert made == {
        "type": "file", "id": made["id"], "filename": "a.pdf", "mime_type": "application/pdf",
        "size_bytes": 8, "created_at": made["created_at"], "downloadable": False, "expires_at": None,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])
    listed = client.get(path, headers=headers).json()
    assert listed == {
        "data": [made], "has_more": False, "next_page": None, "first_id": made["id"], "last_id": made["id"]
    }  # fmt: skip
    content = client.get(f"{path}/{made['id']}/content", headers=headers)
    assert content.status_code == 400
    assert content.json()["error"]["details"] == {"error_code": "file_not_downloadable"}
    missing = client.get(f"{path}/file-none", headers=headers)
    anthropic_error(missing.json())
    assert missing.headers["request-id"]
    gone = client.delete(f"{path}/{made['id']}", headers=headers)
    assert gone.json() == {"id": made["id"], "type": "file_deleted"}


def test_the_platforms_renaming_stays_its_own(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    names = [upload(client, b"x", "same.txt").json()["filename"] for _ in range(3)]
    assert names == ["same.txt"] * 3
    assert len({file.filename for file in upstream.files.files.values()}) == 3


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize(
    ("word", "data", "sent"),
    [
        ("file-extract", PNG, "file-extract"), ("image", b"x", "image"), ("video", b"x", "video"),
        ("batch", b"{}", "batch"), ("user_data", b"%PDF-", "file-extract"), ("user_data", PNG, "image"),
        ("user_data", MP4, "video"), ("assistants", b"text", "file-extract"), ("vision", PNG, "image"),
        ("vision", MP4, "video"),
    ],
)  # fmt: skip
def test_a_purpose_is_mapped_to_the_platforms_and_shown_as_it_came(
    client: httpx.Client, upstream: ScriptedUpstream, word: str, data: bytes, sent: str, beta: bool
) -> None:
    upstream.files.beta = beta
    made = upload(client, data, "x", purpose=word).json()
    assert (made["purpose"], made["status"], made["bytes"]) == (word, "processed", len(data))
    assert [file.purpose for file in upstream.files.files.values()] == [sent]
    assert [each["id"] for each in client.get("/v1/files", params={"purpose": word}).json()["data"]] == [
        made["id"]
    ]
    assert client.get("/v1/files", params={"purpose": "other"}).json()["data"] == []


def test_a_purpose_behind_a_small_file_counts_too(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    parts = {"file": ("a.png", PNG), "purpose": (None, "vision")}
    assert client.post("/v1/files", files=parts).json()["purpose"] == "vision"
    late = {"file": ("a.png", PNG + b"x" * 300_000), "purpose": (None, "vision")}
    refused = client.post("/v1/files", files=late)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "purpose")
    assert len(upstream.files.files) == 1


def test_a_file_expires_when_its_owner_said(client: httpx.Client) -> None:
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = upload(client, **expiry).json()
    assert made["expires_at"] - made["created_at"] == 3600
    files, more = {"file": ("a", b"x")}, {"expires_in_seconds": "7776000"}
    theirs = client.post("/v1/files", files=files, data=more, headers=ANTHROPIC).json()
    assert theirs["expires_at"] > theirs["created_at"]


def test_an_expired_file_is_gone(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    now = 1_800_000_000.0
    with (
        LiveGateway(tmp_path, upstream.url, clock=lambda: now) as gateway,
        gateway.client(gateway.key()) as client,
    ):
        made = upload(client, **{"expires_after[seconds]": "3600"}).json()
        assert client.get(f"/v1/files/{made['id']}").status_code == 200
        now += 3600
        assert client.get(f"/v1/files/{made['id']}").status_code == 404
        assert client.get("/v1/files").json()["data"] == []


def test_pages_of_both_shapes_cover_all_files_once(gateway: LiveGateway, client: httpx.Client) -> None:
    ids = [upload(client, b"x", f"{n}.txt").json()["id"] for n in range(5)]
    for order in ("asc", "desc"):
        found: list[str] = []
        while True:
            after = {"after": found[-1]} if found else {}
            page = client.get("/v1/files", params={"order": order, "limit": 2, **after}).json()
            found += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                break
        assert sorted(found) == sorted(ids)
        assert found == sorted(found, reverse=order == "desc")
    found, page = [], {"next_page": ""}
    while page["next_page"] is not None:
        more = {"page": page["next_page"]} if page["next_page"] else {}
        page = client.get("/v1/files", params={"limit": 2, **more}, headers=ANTHROPIC).json()
        found += [each["id"] for each in page["data"]]
    assert found == sorted(ids, reverse=True)
    older = client.get("/v1/files", params={"after_id": found[1], "limit": 2}, headers=ANTHROPIC).json()
    assert [each["id"] for each in older["data"]] == found[2:4]
    newer = client.get("/v1/files", params={"before_id": found[3], "limit": 2}, headers=ANTHROPIC).json()
    assert ([each["id"] for each in newer["data"]], newer["has_more"]) == (found[1:3], True)
    some = client.get("/v1/files", params={"ids[]": [ids[0], ids[3], "file-none"]}, headers=ANTHROPIC).json()
    assert [each["id"] for each in some["data"]] == sorted([ids[0], ids[3]], reverse=True)
    client.delete(f"/v1/files/{found[1]}")
    after = client.get("/v1/files", params={"after": found[1]}).json()
    assert [each["id"] for each in after["data"]] == found[2:]


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("limit=10001", "limit"), ("order=up", "order")],
)
def test_a_bad_query_is_named(client: httpx.Client, query: str, field: str) -> None:
    refused = client.get(f"/v1/files?{query}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


# Whose they are


def test_no_account_sees_another_ones_files(gateway: LiveGateway, client: httpx.Client) -> None:
    made = upload(client).json()["id"]
    with gateway.client(gateway.key()) as other:
        assert other.get("/v1/files").json()["data"] == []
        assert other.get("/v1/files", params={"ids[]": [made]}, headers=ANTHROPIC).json()["data"] == []
        for headers in ({}, ANTHROPIC):
            for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
                answer = other.request(method, f"/v1/files/{made}{path}", headers=headers)
                unknown = other.request(method, f"/v1/files/file-none{path}", headers=headers)
                assert answer.status_code == unknown.status_code == 404
                assert (
                    answer.text.replace(made, "file-none").split('"request_id"')[0]
                    == (unknown.text.split('"request_id"')[0])
                )
    assert client.get(f"/v1/files/{made}").status_code == 200


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_without_a_key_nothing_is_read(gateway: LiveGateway, method: str) -> None:
    with connect(gateway) as client:
        client.sendall(head("/v1/files", "host: x", f"content-length: {HUGE}", method=method))
        assert statuses(rest_of(client)) == [401]


def test_an_account_without_credits_uploads_and_reads_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    with gateway.client(gateway.key(0)) as client:
        assert upload(client).status_code == 403
        assert client.get("/v1/files").json()["data"] == []
    assert upstream.requests == []


@pytest.mark.parametrize("purpose", ["image", "vision", "user_data"])
def test_a_picture_that_was_called_a_text_is_still_a_picture(
    client: httpx.Client, upstream: ScriptedUpstream, purpose: str
) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(200)
    sent = {"file": ("a.txt", picture, "text/plain")}
    id = client.post("/v1/files", data={"purpose": purpose}, files=sent).json()["id"]
    part = {"type": "image_url", "image_url": {"url": f"ms://{id}"}}
    asked = {"model": "kimi-k3", "messages": [{"role": "user", "content": [part]}]}
    answer = client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    (chat,) = upstream.chats
    assert chat.body["messages"][0]["content"][0]["image_url"]["url"].startswith("ms://")
