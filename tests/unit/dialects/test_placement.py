"""Attachments of the three formats: where their results go."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.attachments import (
    Address,
    DocumentText,
    Inline,
    MediaUrl,
    Resolved,
    Unreadable,
)
from kimi_gateway.pivot.media import INLINED
from kimi_gateway.pivot.placement import MOST, SEE_DOCUMENT
from support.attaching import (
    DIALECTS,
    PDF,
    PNG,
    ask,
    attached,
    body,
    document,
    picture,
    place,
    result,
    source,
    text,
    user,
)

FORMS = list(DIALECTS)
in_all_formats = pytest.mark.parametrize("form", FORMS)
SEED_DOCUMENT = {
    "model": "kimi",
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "file",
                    "file_url": {"url": "https://mj101-1317487292.cos.ap-shanghai.myqcloud.com/ai/test.pdf"},
                },
                {"type": "text", "text": "What does the document say?"},
            ],
        }
    ],
    "use_search": False,
}
SEED_PICTURE = {
    "model": "kimi",
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "image_url",
                    "image_url": {"url": "https://www.moonshot.cn/assets/logo/normal-dark.png"},
                },
                {"type": "text", "text": "What does the image describe?"},
            ],
        }
    ],
    "use_search": False,
}


def sent(form: str, given: dict[str, Any], *became: Resolved) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = ask(form, given).complete({}, became).chat.body["messages"]
    return messages


@pytest.mark.parametrize(("form", "given"), [("chat", SEED_DOCUMENT), ("chat", SEED_PICTURE)])
def test_the_seeds_bodies_are_read(form: str, given: dict[str, Any]) -> None:
    (found,) = attached(form, given)
    assert isinstance(found.source, Address)
    assert found.source.url.startswith("https://")


def test_a_documents_text_stands_before_the_message_that_names_it() -> None:
    given = {**SEED_DOCUMENT}
    messages = sent("chat", given, DocumentText("test.pdf", "Spells."))
    assert messages == [
        {"role": "system", "content": "Document 'test.pdf':\nSpells."},
        {"role": "user", "content": [{"type": "text", "text": "What does the document say?"}]},
    ]


def test_the_seeds_picture_goes_along() -> None:
    (message,) = sent("chat", SEED_PICTURE, MediaUrl("data:image/png;base64,eA=="))
    assert message["content"][0] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}


@in_all_formats
def test_a_document_keeps_its_place_in_each_later_request(form: str) -> None:
    first = [user(form, document(form, "bytes"), document(form, "address"))]
    became = DocumentText(None, "one"), DocumentText(None, "two")
    beginning = sent(form, body(form, *first), *became)
    assert [message["role"] for message in beginning] == ["system", "system", "user"]
    said = {"role": "assistant", "content": "A."}
    longer = body(form, *first, said, user(form, document(form, "file-1"), words="And?"))
    later = sent(form, longer, *became, DocumentText(None, "three"))
    assert later[: len(beginning)] == beginning
    assert [message["role"] for message in later[len(beginning) :]] == ["assistant", "system", "user"]


@in_all_formats
def test_in_a_tools_result_everything_stays_where_it_was(form: str) -> None:
    given = body(
        form,
        user(form),
        *result(form, text(form, "a"), document(form, "bytes"), picture(form, "address"), text(form, "b")),
    )
    tool = sent(form, given, DocumentText("a.pdf", "one"), MediaUrl("data:image/png;base64,eA=="))[-1]
    assert tool["role"] == "tool"
    assert tool["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "Document 'a.pdf':\none"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
        {"type": "text", "text": "b"},
    ]


@in_all_formats
def test_a_result_of_a_picture_alone_has_words_too(form: str) -> None:
    given = body(form, user(form), *result(form, picture(form, "address")))
    content = sent(form, given, MediaUrl("ms://x"))[-1]["content"]
    assert content[0]["type"] == "text"
    assert content[1]["image_url"]["url"] == "ms://x"


@in_all_formats
def test_a_message_of_a_document_alone_is_not_empty(form: str) -> None:
    given = body(form, {"role": "user", "content": [document(form, "bytes")]})
    assert sent(form, given, DocumentText(None, "one"))[-1] == {"role": "user", "content": SEE_DOCUMENT}


@in_all_formats
def test_words_stand_for_what_could_not_be_read(form: str) -> None:
    given = body(form, user(form, document(form, "address")))
    (message,) = sent(form, given, Unreadable("[gone]"))
    assert message["content"][0] == {"type": "text", "text": "[gone]"}


@in_all_formats
def test_only_what_the_user_has_just_attached_may_be_an_error(form: str) -> None:
    old = [user(form, document(form, "address")), {"role": "assistant", "content": "A."}]
    given = body(form, *old, user(form, document(form, "bytes")))
    assert [each.told for each in attached(form, given)] == [True, False]


@in_all_formats
def test_in_a_tools_loop_all_is_reported(form: str) -> None:
    given = body(form, user(form), *result(form, text(form, "read")), user(form, document(form, "bytes")))
    assert [each.told for each in attached(form, given)] == [True]


@in_all_formats
def test_a_picture_that_the_vendor_takes_goes_along_as_it_is(form: str) -> None:
    assert attached(form, body(form, user(form, picture(form, "bytes")))) == []


def test_a_large_picture_is_uploaded() -> None:
    data = base64.b64encode(bytes(INLINED + 1)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    (found,) = attached("chat", body("chat", user("chat", part)))
    assert found.source == Inline(data)
    assert found.media_type == "image/png"


def of_text(form: str, data: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    if form == "messages":
        return source(type="base64", media_type="text/plain", data=encoded)
    members = {"file_data": f"data:text/plain;base64,{encoded}", "filename": "n.txt"}
    return {"type": "file", "file": members} if form == "chat" else {"type": "input_file", **members}


@in_all_formats
def test_a_text_needs_no_upload_and_stands_where_it_was_put(form: str) -> None:
    given = body(form, user(form, of_text(form, "ä text".encode())))
    assert attached(form, given) == []
    assert "ä text" in sent(form, given)[0]["content"][0]["text"]


@in_all_formats
def test_a_text_that_is_not_utf8_is_for_the_extraction(form: str) -> None:
    (found,) = attached(form, body(form, user(form, of_text(form, b"\xb0\xa1\xb0\xa2"))))
    assert isinstance(found.source, Inline)
    assert found.media_type == "text/plain"


def test_title_and_context_of_a_document_reach_the_model() -> None:
    part = document("messages", "bytes") | {"title": "Spells", "context": "of 1900"}
    told = sent("messages", body("messages", user("messages", part)), DocumentText(None, "one"))
    assert told[0]["content"] == "Document 'Spells' (of 1900):\none"


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (document("messages", "bytes") | {"citations": {"enabled": True}}, "citations"),
        (picture("messages", "bytes") | {"transformations": [{"type": "resize"}]}, "transformations"),
        ({"type": "container_upload", "file_id": "file-1"}, "container_upload"),
    ],
)
def test_what_has_no_counterpart_is_named(part: dict[str, Any], name: str) -> None:
    chat = ask("messages", body("messages", user("messages", part))).complete({}, ()).chat
    assert name in chat.ignored


def test_citations_that_are_off_are_not() -> None:
    part = document("messages", "bytes") | {"citations": {"enabled": False}}
    assert ask("messages", body("messages", user("messages", part))).complete({}, ()).chat.ignored == ()


@in_all_formats
def test_too_many_attachments_are_refused_by_the_first_that_is_too_many(form: str) -> None:
    def many(count: int) -> dict[str, Any]:
        return body(form, user(form, *(document(form, f"file-{at}") for at in range(count))))

    assert len(attached(form, many(MOST))) == MOST
    with pytest.raises(InvalidRequest) as refused:
        ask(form, many(200))
    assert str(refused.value.param).startswith(place(form, 0, MOST))
    assert str(MOST) in refused.value.message


@in_all_formats
def test_too_many_of_a_tool_do_not_end_the_session(form: str) -> None:
    parts = [document(form, f"file-{at}") for at in range(MOST + 2)]
    given = body(form, user(form), *result(form, *parts))
    found = attached(form, given)
    assert len(found) == MOST
    tool = sent(form, given, *[DocumentText(None, "t")] * MOST)[-1]
    assert str(MOST) in tool["content"][-1]["text"]


@in_all_formats
def test_the_same_attachment_of_one_place_is_read_once(form: str) -> None:
    given = body(form, user(form, picture(form, "bytes"), document(form, "bytes")))
    assert len(attached(form, given)) == 1


def test_pngs_are_pngs() -> None:
    assert base64.b64decode(PNG).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "head", ["DATA:image/png;base64,", "data:IMAGE/PNG;Base64,", "data:image/png;charset=x; base64,"]
)
@in_all_formats
def test_a_data_url_is_read_in_any_case_and_sent_as_the_vendor_knows_it(form: str, head: str) -> None:
    part = picture(form, "bytes")
    if form == "messages":
        part["source"]["media_type"] = head.partition(":")[2].partition(";")[0]
    else:
        part["image_url"] = head + PNG
    (message,) = sent(form, body(form, user(form, part)))
    assert message["content"][0] == {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{PNG}"},
    }


@pytest.mark.parametrize("form", ["chat", "responses"])
def test_file_data_is_read_in_any_case(form: str) -> None:
    part = document(form, "bytes")
    file = part["file"] if form == "chat" else part
    file["file_data"] = file["file_data"].replace("data:application/pdf", "Data:Application/PDF")
    (found,) = attached(form, body(form, user(form, part)))
    assert (found.source, found.media_type) == (Inline(PDF), "application/pdf")
