"""Pictures and videos in base64: small ones go along in the request, larger ones are uploaded."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kimi_gateway.pivot.media import INLINED
from support.attaching import PATHS, body, result, user
from support.live import LiveGateway
from support.web import Web
from upstream import Request, ScriptedUpstream, Status

PNG = b"\x89PNG\r\n\x1a\n"
MP4 = b"\0\0\0\x18ftypisom"
SMALL, LARGE = PNG.ljust(INLINED, b"s"), PNG.ljust(INLINED + 1, b"l")
UNNAMED = "application/octet-stream"


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(form: str, data: bytes) -> dict[str, Any]:
    if form == "messages":
        source = {"type": "base64", "media_type": "image/png", "data": coded(data)}
        return {"type": "image", "source": source}
    url = f"data:image/png;base64,{coded(data)}"
    if form == "responses":
        return {"type": "input_image", "image_url": url}
    return {"type": "image_url", "image_url": {"url": url}}


def file(form: str, kind: str, data: bytes) -> dict[str, Any]:
    """As `file_data`, with a media type or bare."""
    given = {"file_data": f"data:{kind};base64,{coded(data)}" if kind else coded(data)}
    return {"type": "file", "file": given} if form == "chat" else {"type": "input_file", **given}


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(small_png=SMALL, large_png=LARGE) as web:
        yield web


@pytest.fixture(scope="module")
def gateway(
    web: Web, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("inline")
    with LiveGateway(folder, module_upstream.url, fetch_allowed=(web.target,), keep_texts=0) as gateway:
        yield gateway


FILES = {"image/png": "image", "video/mp4": "video", UNNAMED: "image", "": "image"}
CASES = [(form, None) for form in PATHS] + [
    (("chat", "responses")[at % 2], kind) for at, kind in enumerate(FILES)
]


def part(form: str, kind: str | None, mark: bytes) -> dict[str, Any]:
    """A part that is larger than what goes along in a request; `mark` makes it another one."""
    data = (MP4 if kind == "video/mp4" else PNG) + mark.ljust(INLINED, b"l")
    return picture(form, data) if kind is None else file(form, kind, data)


def media(upstream: ScriptedUpstream) -> list[str]:
    """The addresses of pictures and videos in the last chat."""
    found = []
    for message in upstream.chats[-1].body["messages"]:
        for each in message["content"] if isinstance(message["content"], list) else ():
            if (kind := each["type"]) in ("image_url", "video_url"):
                found.append(each[kind]["url"])
    return found


def uploads(upstream: ScriptedUpstream) -> list[Request]:
    return [each for each in upstream.requests if (each.method, each.path) == ("POST", "/v1/files")]


def nothing_left(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """No file, no record, and as many deletions as uploads."""
    running = gateway.app.running
    assert running is not None
    gateway.until(lambda: not upstream.files.files)
    cleaner = running.attachments.cleaner  # type: ignore[union-attr]
    gateway.do(cleaner.rest(5))
    assert cleaner.uploads == cleaner.deletions
    assert gateway.do(gateway.store.due_files(2**33, 10)) == []


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_large_media_in_base64_are_uploaded_wherever_they_stand(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str, kind: str | None
) -> None:
    messages = [user(form, part(form, kind, b"1")), *result(form, part(form, kind, b"2"))]
    stream = CASES.index((form, kind)) % 2 == 0
    with gateway.client(gateway.key()) as client:
        answer = client.post(PATHS[form], json=body(form, *messages, stream=stream))
    assert answer.status_code == 200, answer.text
    assert sorted(media(upstream)) == [f"ms://{id}" for id in upstream.files.given]
    assert len(uploads(upstream)) == 2
    purpose = "image" if kind is None else FILES[kind]
    assert {sent.raw.split(b"\r\n\r\n")[1][:5] for sent in uploads(upstream)} == {purpose.encode()}
    nothing_left(gateway, upstream)


@pytest.mark.parametrize("form", PATHS)
def test_the_size_that_is_uploaded_is_the_same_for_base64_and_addresses(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str
) -> None:
    def by_address(name: str) -> dict[str, Any]:
        given = picture(form, b"")
        url = f"{web.url}/{name}.png"
        if form == "messages":
            return {**given, "source": {"type": "url", "url": url}}
        return {**given, "image_url": url}

    with gateway.client(gateway.key()) as client:
        for data, name, count in ((SMALL, "small", 0), (LARGE, "large", 2)):
            given = body(form, user(form, picture(form, data), by_address(name)))
            answer = client.post(PATHS[form], json=given)
            assert answer.status_code == 200, answer.text
            assert len(uploads(upstream)) == count
            assert [url.startswith("data:image/png;base64,") for url in media(upstream)] == [not count] * 2
    nothing_left(gateway, upstream)


@pytest.mark.parametrize("form", PATHS)
def test_nothing_is_left_and_nothing_charged_if_the_model_fails(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str
) -> None:
    upstream.plan(Status(400, {"error": {"type": "invalid_request_error", "message": "no"}}))
    key = gateway.key(1)
    with gateway.client(key) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, picture(form, LARGE))))
    assert answer.status_code == 400
    assert len(uploads(upstream)) == 1
    assert (gateway.account(key).credits, gateway.account(key).reserved) == (1, 0)
    nothing_left(gateway, upstream)


TEXT, JPEG, TIFF = b"#!/bin/sh\nrm -rf /", b"\xff\xd8\xff\xe0" + bytes(20), b"II*\x00" + bytes(20)
MOV = b"\0\0\0\x08wide" + bytes(20)
AVI, WAVE = b"RIFF\0\0\0\0AVI ", b"RIFF\0\0\0\0WAVE"


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("data", [MP4, TIFF, WAVE, b"%PDF-1.7", b"PK\x05\x06" + bytes(18)])
def test_what_is_something_else_never_reaches_the_vendor_as_one(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str, data: bytes
) -> None:
    """The error names the place; in a tool's result a sentence for the model stands there."""
    with gateway.client(gateway.key(7)) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, picture(form, data))))
        assert answer.status_code == 400, answer.text
        name = "input" if form == "responses" else "messages"
        assert f"{name}.0.content.0" in answer.json()["error"]["message"]
        assert not upstream.requests
        told = client.post(PATHS[form], json=body(form, user(form), *result(form, picture(form, data))))
        assert (told.status_code, told.headers["x-credits-remaining"]) == (200, "6"), told.text
    assert media(upstream) == []
    assert "that cannot be shown" in str(upstream.chats[-1].body)


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize(("data", "type"), [(PNG, "png"), (JPEG, "jpeg"), (b"GIF89a", "gif")])
def test_a_picture_under_the_name_of_another_type_gets_its_own(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str, data: bytes, type: str
) -> None:
    with gateway.client(gateway.key()) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, picture(form, data))))
        assert answer.status_code == 200, answer.text
    assert media(upstream) == [f"data:image/{type};base64,{coded(data)}"]


@pytest.mark.parametrize(
    ("given", "data", "sent"),
    [
        ("video/mp4", MP4, "video/mp4"),
        ("video/mp4", MOV, "video/quicktime"),
        ("video/avi", AVI, "video/avi"),
        ("video/mp4", TEXT, "video/mp4"),
        ("video/mp4", PNG, None),
        ("video/x-msvideo", WAVE, None),
    ],
)
def test_videos_are_checked_too(
    gateway: LiveGateway, upstream: ScriptedUpstream, given: str, data: bytes, sent: str | None
) -> None:
    part = {"type": "video_url", "video_url": {"url": f"data:{given};base64,{coded(data)}"}}
    with gateway.client(gateway.key()) as client:
        answer = client.post(PATHS["chat"], json=body("chat", user("chat", part)))
    assert answer.status_code == (200 if sent else 400), answer.text
    if sent:
        assert media(upstream) == [f"data:{sent};base64,{coded(data)}"]
    else:
        assert answer.json()["error"]["param"] == "messages.0.content.0.video_url"


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize(
    "spoil", [lambda c: c[:-1], lambda c: c[:8] + "\n" + c[8:], lambda c: "-_" + c[2:], lambda c: c + c]
)
def test_base64_is_standard_and_whole(gateway: LiveGateway, form: str, spoil: Callable[[str], str]) -> None:
    """With padding, without line ends, and not the alphabet for addresses (RFC 4648, section 4)."""
    part = picture(form, JPEG + b"\xff\xd8")
    given = json.loads(
        json.dumps(part).replace(
            coded(JPEG + b"\xff\xd8"), json.dumps(spoil(coded(JPEG + b"\xff\xd8")))[1:-1]
        )
    )
    assert given != part
    with gateway.client(gateway.key()) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, given)))
    assert answer.status_code == 400, answer.text
    assert "not valid base64" in answer.json()["error"]["message"]


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("data", [TEXT, b"\0" * 40])
def test_what_is_not_recognised_is_left_to_the_vendor(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str, data: bytes
) -> None:
    with gateway.client(gateway.key()) as client:
        answer = client.post(PATHS[form], json=body(form, user(form, picture(form, data))))
        assert answer.status_code == 200, answer.text
    (sent,) = media(upstream)
    assert sent.endswith(f";base64,{coded(data)}")
