"""Files that are too large for a request to AWS: an address of a bucket, the file there, its completion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest

from support import dynamo
from support.live import LiveGateway
from support.uploading import ANTHROPIC
from upstream import ScriptedUpstream, Status

DATA = bytes(range(256)) * 4_000  # more than is read before an upload begins
BUCKET = "uploads-of-a-test"


class Clock:
    ahead = 0

    def __call__(self) -> float:
        return time.time() + self.ahead


CLOCK = Clock()


@pytest.fixture(scope="module")
def bucket(moto_url: str) -> Any:
    session = boto3.Session(dynamo.FAKE.access_key, dynamo.FAKE.secret_key, region_name="us-east-1")
    s3 = session.resource("s3", endpoint_url=moto_url)
    return s3.create_bucket(Bucket=BUCKET)


@pytest.fixture(scope="module")
def gateway(
    bucket: Any,
    moto_url: str,
    module_upstream: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveGateway]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": moto_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": dynamo.FAKE.access_key,
            "AWS_SECRET_ACCESS_KEY": dynamo.FAKE.secret_key,
        }.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("gateway")
        room = {"account_files": 3, "account_file_bytes": 3_000_000}
        with LiveGateway(folder, module_upstream.url, clock=CLOCK, uploads=BUCKET, **room) as gateway:
            yield gateway


def objects(bucket: Any) -> list[str]:
    return [each.key for each in bucket.objects.all()]


def begin(client: httpx.Client, size: object = len(DATA), path: str = "/v1/files/uploads") -> Any:
    answer = client.post(path, json={"bytes": size})
    assert answer.status_code == 200, answer.text
    return answer.json()


def complete(client: httpx.Client, id: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"upload": id, "purpose": "file-extract", "filename": "a/b.txt", **more}
    return client.post("/v1/files", json=body, headers=headers)


def test_a_file_goes_through_the_bucket_and_leaves_nothing_there(
    client: httpx.Client, upstream: ScriptedUpstream, bucket: Any
) -> None:
    begun = begin(client)
    assert (begun["object"], begun["method"], begun["bytes"]) == ("file.upload", "PUT", len(DATA))
    assert "content-length" in begun["url"]  # S3 takes no other size
    assert httpx.put(begun["url"], content=DATA).status_code == 200
    assert len(objects(bucket)) == 1
    made = complete(client, begun["id"]).json()
    assert (made["id"], made["bytes"], made["filename"], made["status"]) == (
        begun["id"], len(DATA), "b.txt", "processed",
    )  # fmt: skip
    assert objects(bucket) == []
    (kept,) = upstream.files.files.values()
    assert kept.data == DATA
    assert client.get(f"/v1/files/{made['id']}").json() == made
    again = complete(client, begun["id"])
    assert (again.status_code, again.json()["error"]["param"]) == (409, "upload")
    assert client.delete(f"/v1/files/{made['id']}").status_code == 200


def test_anthropics_clients_have_it_too(client: httpx.Client) -> None:
    begun = begin(client, path="/anthropic/v1/files/uploads")
    httpx.put(begun["url"], content=DATA)
    made = complete(client, begun["id"], headers=ANTHROPIC).json()
    assert (made["type"], made["size_bytes"]) == ("file", len(DATA))


def test_an_upload_is_its_accounts_own(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    begun = begin(client)
    httpx.put(begun["url"], content=DATA)
    with gateway.client(gateway.key()) as other:
        assert complete(other, begun["id"]).status_code == 404
        assert other.get("/v1/files").json()["data"] == []
    assert upstream.files.files == {}


def test_what_has_no_file_yet_can_be_completed_later(
    client: httpx.Client, upstream: ScriptedUpstream
) -> None:
    begun = begin(client)
    early = complete(client, begun["id"])
    assert (early.status_code, early.json()["error"]["param"]) == (400, "upload")
    assert client.delete(f"/v1/files/{begun['id']}").status_code == 409  # so that the room stays taken
    httpx.put(begun["url"], content=DATA)
    upstream.at("/v1/files", Status(400, {"error": {"message": "no", "type": "invalid_request_error"}}))
    assert complete(client, begun["id"]).status_code == 400
    upstream.forget()
    assert complete(client, begun["id"], purpose="other").status_code == 400
    assert complete(client, begun["id"]).status_code == 200


def test_uploads_take_the_room_of_files_before_they_are_sent(client: httpx.Client) -> None:
    ids = [begin(client)["id"] for _ in range(2)]
    assert client.post("/v1/files/uploads", json={"bytes": len(DATA)}).status_code == 400
    begin(client, 1_000)
    full = client.post("/v1/files/uploads", json={"bytes": 1})
    assert (full.status_code, "max file count" in full.json()["error"]["message"]) == (400, True)
    assert {each["status"] for each in client.get("/v1/files").json()["data"]} == {"uploaded"}
    assert client.get(f"/v1/files/{ids[0]}/content").status_code == 409


def test_an_upload_that_is_not_completed_ends_by_itself(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    begun = begin(client)
    assert gateway.app.running is not None
    cleaner = gateway.app.running.attachments.cleaner
    before = len(upstream.requests)
    CLOCK.ahead = 3_601
    try:
        assert complete(client, begun["id"]).status_code == 404
        swept = gateway.do(cleaner.sweep())
        assert swept.left == 0
        assert gateway.do(gateway.store.due_files(int(gateway.clock()), 100)) == []  # type: ignore[attr-defined]
    finally:
        CLOCK.ahead = 0
    assert len(upstream.requests) == before


@pytest.mark.parametrize(
    ("size", "status"), [(0, 400), (-1, 400), ("1", 400), (True, 400), (None, 400), (1.5, 400), (2**31, 413)]
)
def test_a_wrong_size_is_refused(client: httpx.Client, size: object, status: int) -> None:
    answer = client.post("/v1/files/uploads", json={"bytes": size})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, "bytes")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "upload"),
        ({"upload": 1}, "upload"),
        ({"upload": "file-none", "filename": "a"}, "file_id"),
        ({"filename": None}, "filename"),
        ({"expires_after": []}, "expires_after"),
        ({"expires_after": {"anchor": "created_at", "seconds": "x"}}, "expires_after.seconds"),
    ],
)
def test_a_wrong_completion_is_refused(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    if "upload" not in body and body:
        begun = begin(client)
        httpx.put(begun["url"], content=DATA)
        body = {"upload": begun["id"], "filename": "a.txt", "purpose": "file-extract", **body}
    answer = client.post("/v1/files", json=body)
    assert (answer.status_code // 100, answer.json()["error"]["param"]) == (4, param), answer.text


def test_a_long_completion_and_one_without_a_key_are_refused(
    client: httpx.Client, gateway: LiveGateway
) -> None:
    assert client.post("/v1/files", json={"upload": "x" * 10_000}).status_code == 413
    assert httpx.post(f"{gateway.url}/v1/files/uploads", json={"bytes": 1}).status_code == 401
    with gateway.client(gateway.key(credits=0)) as poor:
        assert poor.post("/v1/files/uploads", json={"bytes": 1}).status_code in (402, 403, 429)


def test_a_gateway_without_a_bucket_says_how_to_upload(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> None:
    with (
        LiveGateway(tmp_path_factory.mktemp("home"), upstream.url) as home,
        home.client(home.key()) as client,
    ):
        answer = client.post("/v1/files/uploads", json={"bytes": 1})
        assert (answer.status_code, "POST /v1/files" in answer.json()["error"]["message"]) == (404, True)
