"""Documents and pictures as the official SDKs send them, newest and old, against the emulator's files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from clients.drivers import Driver
from support import sdks
from support.attaching import PATHS, body, picture, place, user
from support.error_shape import anthropic_error, openai_error
from support.live import LiveGateway
from support.resolving import PNG, pdf
from support.web import Web
from upstream import ScriptedUpstream
from upstream.kimi import TEXT

WORDS = "Rainfall rose."
DATA = base64.b64encode(pdf(WORDS)).decode()
PICTURE = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
PROMPT = "What is it?"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(a_pdf=pdf(WORDS), a_png=PNG, scan_pdf=b"%PDF-1.7\n%%EOF\n", never_pdf=None) as web:
        yield web


@pytest.fixture(scope="module")
def gateway(
    web: Web, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("attachments")
    with LiveGateway(folder, module_upstream.url, fetch_allowed=(web.target,)) as gateway:
        yield gateway


def chat_parts(web: Web) -> dict[str, list[dict[str, Any]]]:
    files = [
        {"file_data": f"data:application/pdf;base64,{DATA}", "filename": "a.pdf"},
        {"file_data": f"{web.url}/a.pdf"},
    ]
    return {
        "documents": [{"type": "file", "file": file} for file in files],
        "pictures": [
            {"type": "image_url", "image_url": {"url": url}} for url in (PICTURE, f"{web.url}/a.png")
        ],
    }


def response_parts(web: Web) -> dict[str, list[dict[str, Any]]]:
    return {
        "documents": [
            {"type": "input_file", "file_data": f"data:application/pdf;base64,{DATA}", "filename": "a.pdf"},
            {"type": "input_file", "file_url": f"{web.url}/a.pdf"},
        ],
        "pictures": [
            {"type": "input_image", "detail": "auto", "image_url": url}
            for url in (PICTURE, f"{web.url}/a.png")
        ],
    }


def messages_parts(web: Web) -> dict[str, list[dict[str, Any]]]:
    pdf_source = {"type": "base64", "media_type": "application/pdf", "data": DATA}
    png_source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    return {
        "documents": [
            {"type": "document", "source": pdf_source},
            {"type": "document", "source": {"type": "url", "url": f"{web.url}/a.pdf"}},
        ],
        "pictures": [
            {"type": "image", "source": png_source},
            {"type": "image", "source": {"type": "url", "url": f"{web.url}/a.png"}},
        ],
    }


def reached(upstream: ScriptedUpstream) -> None:
    """The last chat had both documents before the message, and both pictures in it."""
    *documents, message = upstream.chats[-1].body["messages"]
    assert [document["role"] for document in documents] == ["system", "system"]
    assert all(WORDS in document["content"] for document in documents)
    pictures = [part for part in message["content"] if part["type"] == "image_url"]
    assert [picture["image_url"]["url"] for picture in pictures] == [PICTURE, PICTURE]


def test_the_openai_sdk(gateway: LiveGateway, upstream: ScriptedUpstream, web: Web) -> None:
    with sdks.openai.OpenAI(
        api_key=gateway.key(), base_url=f"{gateway.url}/v1", max_retries=0, _strict_response_validation=True
    ) as client:
        parts = chat_parts(web)
        content: Any = [*parts["documents"], *parts["pictures"], {"type": "text", "text": PROMPT}]
        answer = client.chat.completions.create(
            model="kimi-k3", messages=[{"role": "user", "content": content}]
        )
        assert answer.choices[0].message.content == TEXT
        reached(upstream)
        parts = response_parts(web)
        content = [*parts["documents"], *parts["pictures"], {"type": "input_text", "text": PROMPT}]
        response = client.responses.create(model="kimi-k3", input=[{"role": "user", "content": content}])
        assert response.output_text == TEXT
        reached(upstream)


def test_the_anthropic_sdk(gateway: LiveGateway, upstream: ScriptedUpstream, web: Web) -> None:
    with sdks.anthropic.Anthropic(
        api_key=gateway.key(), base_url=gateway.url, max_retries=0, _strict_response_validation=True
    ) as client:
        parts = messages_parts(web)
        content: Any = [*parts["documents"], *parts["pictures"], {"type": "text", "text": PROMPT}]
        messages: Any = [{"role": "user", "content": content}]
        answer = client.messages.create(model="kimi-k3", max_tokens=100, messages=messages)
        assert answer.content[-1].type == "text"
        assert answer.content[-1].text == TEXT
        reached(upstream)
        with client.messages.stream(model="kimi-k3", max_tokens=100, messages=messages) as stream:
            assert stream.get_final_text() == TEXT
        reached(upstream)
        assert client.messages.count_tokens(model="kimi-k3", messages=messages).input_tokens > 3 * 1024


@pytest.mark.parametrize(
    ("language", "sdk"), [("node", "openai"), ("node", "openai-old"), ("python", "openai")]
)
def test_other_openai_sdks(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, language: str, sdk: str
) -> None:
    parts = chat_parts(web)
    content = [*parts["documents"], *parts["pictures"], {"type": "text", "text": PROMPT}]
    with Driver(language, sdk, f"{gateway.url}/v1") as driver:
        asked = {"model": "kimi-k3", "messages": [{"role": "user", "content": content}]}
        outcome = driver("whole", key=gateway.key(), body=asked)
    assert not outcome.classes, outcome
    assert outcome.value["choices"][0]["message"]["content"] == TEXT
    reached(upstream)


@pytest.mark.parametrize("verb", ["responded", "response-accumulated"])
def test_the_responses_of_node(gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, verb: str) -> None:
    parts = response_parts(web)
    content = [*parts["documents"], *parts["pictures"], {"type": "input_text", "text": PROMPT}]
    with Driver("node", "openai", f"{gateway.url}/v1") as driver:
        asked = {"model": "kimi-k3", "input": [{"role": "user", "content": content}]}
        outcome = driver(verb, key=gateway.key(), body=asked)
    assert not outcome.classes, outcome
    assert outcome.value["output_text"] == TEXT
    reached(upstream)


@pytest.mark.parametrize("name", ["@anthropic-ai/sdk", "anthropic-old"])
@pytest.mark.parametrize("verb", ["whole", "accumulated"])
def test_the_anthropic_sdks_of_node(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, name: str, verb: str
) -> None:
    parts = messages_parts(web)
    content = [*parts["documents"], *parts["pictures"], {"type": "text", "text": PROMPT}]
    with Driver("node", name, gateway.url) as driver:
        asked = {"model": "kimi-k3", "max_tokens": 100, "messages": [{"role": "user", "content": content}]}
        outcome = driver(verb, key=gateway.key(), body=asked)
    assert not outcome.classes, outcome
    reached(upstream)


def document(form: str, source: dict[str, str]) -> dict[str, Any]:
    """`source`: one or more of data, url, id, in the words of the format."""
    words = {
        "chat": {"data": "file_data", "url": "file_url", "id": "file_id"},
        "messages": {"data": "data", "url": "url", "id": "file_id"},
    }.get(form, {"data": "file_data", "url": "file_url", "id": "file_id"})
    members = {words[name]: value for name, value in source.items()}
    if form == "messages":
        kind = {"data": "base64", "url": "url", "id": "file"}[next(iter(source))]
        about = {"media_type": "application/pdf"} if kind == "base64" else {}
        return {"type": "document", "source": {"type": kind, **about, **members}}
    if "file_data" in members:
        members["file_data"] = f"data:application/octet-stream;base64,{members['file_data']}"
    return {"type": "file", "file": members} if form == "chat" else {"type": "input_file", **members}


ELF = base64.b64encode(b"\x7fELF" + bytes(200)).decode()
SCAN = base64.b64encode(b"%PDF-1.7\n%%EOF\n").decode()
BAD: dict[str, tuple[dict[str, str], int]] = {
    "wrong base64": ({"data": "%%%"}, 400),
    "an empty file": ({"data": ""}, 400),
    "an unknown type": ({"data": ELF}, 400),
    "a scan": ({"data": SCAN}, 400),
    "the id of nobody": ({"id": "file-nobody"}, 404),
    "two sources": ({"data": DATA, "url": "https://a.example/b.pdf"}, 400),
    "an address of this machine": ({"url": "http://127.0.0.1:1/a.pdf"}, 400),
    "an address that is not there": ({"url": "WEB/none.pdf"}, 400),
    "no address": ({"url": "file:///etc/passwd"}, 400),
}


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_is_an_error_of_the_format_and_leaves_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str, case: str
) -> None:
    source, status = BAD[case]
    source = {name: value.replace("WEB", web.url) for name, value in source.items()}
    key = gateway.key(1)
    with gateway.client(key) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, document(form, source))))
    assert answer.status_code == status, answer.text
    error = anthropic_error(answer.json()) if form == "messages" else openai_error(answer.json())
    assert place(form, 0, 0) in error["message"]
    gateway.do(gateway.app.running.attachments.cleaner.rest(5))  # type: ignore[union-attr]
    account = gateway.account(key)
    assert (account.credits, account.reserved) == (1, 0)
    assert not upstream.chats
    assert not upstream.files.files


@pytest.mark.parametrize("form", PATHS)
def test_200_documents_are_too_many(gateway: LiveGateway, upstream: ScriptedUpstream, form: str) -> None:
    key = gateway.key(1)
    parts = [document(form, {"url": f"https://a.example/{at}.pdf"}) for at in range(200)]
    with gateway.client(key) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, *parts)))
    assert answer.status_code == 400
    assert place(form, 0, 64) in answer.json()["error"]["message"]
    assert gateway.usage(key) == []
    assert not upstream.requests


@pytest.mark.parametrize("form", PATHS)
def test_the_text_of_one_account_is_not_anothers(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str
) -> None:
    """The second upload of the same bytes shows that B did not get A's cached text."""
    data = base64.b64encode(pdf(f"Only for {form}.")).decode()
    given = body(form, user(form, document(form, {"data": data})))
    for key, uploads in ((gateway.key(), 1), (gateway.key(), 2)):
        with gateway.client(key) as client:
            for _ in range(2):
                assert client.post(PATHS[form], json=given).status_code == 200
        assert (
            sum(each.method == "POST" and each.path == "/v1/files" for each in upstream.requests) == uploads
        )
    gateway.do(gateway.app.running.attachments.cleaner.rest(5))  # type: ignore[union-attr]
    assert not upstream.files.files


def uploaded(client: Any, data: bytes, name: str, purpose: str) -> str:
    answer = client.post("/v1/files", files={"file": (name, data)}, data={"purpose": purpose})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("form", PATHS)
def test_a_kept_file_is_its_accounts_only(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str
) -> None:
    with gateway.client(gateway.key()) as owner, gateway.client(gateway.key()) as stranger:
        report = uploaded(owner, pdf(WORDS), "a.pdf", "user_data")
        shown = uploaded(owner, PNG, "a.png", "vision")
        given = body(form, user(form, document(form, {"id": report}), picture(form, shown)))
        assert owner.post(PATHS[form], json=given).status_code == 200
        told, message = upstream.chats[0].body["messages"]
        assert WORDS in told["content"]
        vendors = message["content"][0]["image_url"]["url"]
        assert vendors.startswith("ms://")
        names = [report, shown, vendors.removeprefix("ms://")]
        for part in [document(form, {"id": id}) for id in names] + [picture(form, id) for id in names]:
            refused = stranger.post(PATHS[form], json=body(form, user(form, part)))
            assert refused.status_code == 404, refused.text
            assert WORDS not in refused.text
        assert len(upstream.chats) == 1
