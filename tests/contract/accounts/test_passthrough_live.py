"""Pass-through on sockets: uploads, and that a caller's token is found nowhere afterwards."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.attaching import PATHS, PDF, body, document, user
from support.formats import FORMATS
from support.live import LiveGateway
from support.resolving import pdf
from upstream import ErrorEvent, Kimi, ScriptedUpstream, Status, Step, error

TOKEN = f"sk-canary{'c' * 40}"
OTHER = f"sk-second{'d' * 40}"
TOKENS = f"{TOKEN},{OTHER}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passthrough")


@pytest.fixture(scope="module")
def guests(folder: Path, module_upstream: ScriptedUpstream) -> Iterator[LiveGateway]:
    """At home without a token of the operator."""
    limits = (None, None, None)
    more: dict[str, Any] = {"passthrough": True, "passthrough_limits": limits, "log_level": "debug"}
    with LiveGateway(folder, module_upstream.url, (), **more) as gateway:
        yield gateway


def asked(form: str) -> Any:
    """A question with a document that has a text."""
    told = json.dumps(body(form, user(form, document(form, "bytes"))))
    return json.loads(told.replace(PDF, base64.b64encode(pdf(f"Hello, {form}.")).decode()))


@pytest.mark.parametrize("form", PATHS)
def test_a_document_is_uploaded_to_the_callers_token_and_deleted(
    guests: LiveGateway, upstream: ScriptedUpstream, form: str
) -> None:
    with guests.client(OTHER) as client:
        answer = client.post(PATHS[form], json=asked(form))
    assert answer.status_code == 200, answer.text
    upstream.until(lambda: upstream.files.deletions == upstream.files.uploads)
    assert not upstream.files.files
    uploaded = [request for request in upstream.requests if request.path.startswith("/v1/files")]
    assert {request.token for request in uploaded} == {OTHER}


def test_an_upload_goes_to_another_token_if_the_first_is_refused(
    guests: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.files.refused["POST"] = [Status(403, error("permission_denied_error", "no files"))]
    with guests.client(TOKENS) as client:
        answer = client.post(PATHS["chat"], json=asked("chat"))
    assert answer.status_code == 200, answer.text
    upstream.until(lambda: upstream.files.deletions == 1)
    uploads = [r.token for r in upstream.requests if (r.method, r.path) == ("POST", "/v1/files")]
    assert set(uploads) == {TOKEN, OTHER}


SAID = f"No such key: {TOKEN}, nor {OTHER}"
STEPS: dict[str, Step] = {
    "answered": Kimi(),
    "refused": Status(400, error("invalid_request_error", SAID)),
    "dead": Status(401, error("incorrect_api_key_error", SAID)),
    "broke": Status(429, error("exceeded_current_quota_error", SAID)),
    "broken": Status(500, {"error": SAID}),
    "told in the stream": ErrorEvent(2, error("server_error", SAID)),
}


def test_a_callers_token_is_found_nowhere_afterwards(
    guests: LiveGateway, upstream: ScriptedUpstream, folder: Path
) -> None:
    seen = list[httpx.Response]()
    for step in STEPS.values():
        for form in FORMATS.values():
            upstream.always(step)
            tokens, stream = f"{TOKEN}{len(seen)},{OTHER}{len(seen)}", len(seen) % 2 == 1
            with guests.client(tokens) as client:
                seen.append(client.post(form.path, json=form.asked(stream=stream)))
                seen.append(client.get("/v1/files"))
                seen.append(client.get(f"/v1/models/{TOKEN}"))
    upstream.forget()
    assert {200, 401, 403, 404, 503} <= {answer.status_code for answer in seen}
    guests.until(lambda: len(guests.lines("request")) >= len(seen))
    told = [answer.text + str(answer.headers) for answer in seen if not answer.url.path.endswith(TOKEN)]
    stored = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(stored) >= 1
    for canary in ("canary" + "c" * 40, "second" + "d" * 40):
        assert canary not in "".join(told)
        assert canary.encode() not in b"".join(stored)
        assert canary not in guests.log.getvalue()
    assert "own_" in guests.log.getvalue()
    assert not guests.do(guests.store.published())
    assert not guests.do(guests.store.accounts(0))
