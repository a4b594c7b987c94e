"""Attachments through the whole flow, in all three formats, against files that are a double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.errors import BodyTooLarge, Conflict, GatewayError, InvalidRequest, RateLimited, Unavailable
from kimi_gateway.flow import attachments as flow
from kimi_gateway.http import Headers, Request
from support.attaching import (
    ADDRESS,
    PATHS,
    Files,
    attached,
    body,
    document,
    picture,
    place,
    result,
    text,
    user,
)
from support.inprocess import InProcess, told

in_all_formats = pytest.mark.parametrize("form", PATHS)
MODES = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def shared() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


@pytest.fixture
def desk(shared: InProcess) -> InProcess:
    """With fresh files."""
    shared.running.gateway.files = Files()
    shared.client.sent.clear()
    return shared


def files(desk: InProcess) -> Files:
    found = desk.running.gateway.files
    assert isinstance(found, Files)
    return found


def asked(desk: InProcess, form: str, key: str, given: dict[str, Any]) -> Any:
    return desk.call("POST", PATHS[form], given, key)


def credits(desk: InProcess, key: str) -> Any:
    found = desk.account(key)
    return found.credits, found.reserved


@in_all_formats
@MODES
def test_a_document_is_read_for_one_credit(desk: InProcess, form: str, stream: bool) -> None:
    key = desk.key(2)
    given = body(form, user(form, document(form, "address"), words="Sum it up."), stream=stream)
    answer = asked(desk, form, key, given)
    assert answer.status == 200, answer.body
    (sent,) = desk.client.chats
    system, said = sent.body["messages"]
    assert system["role"] == "system"
    assert "text of the address" in system["content"]
    assert said["content"] == [{"type": "text", "text": "Sum it up."}]
    assert credits(desk, key) == (1, 0)
    assert files(desk).open == 0


@in_all_formats
def test_a_picture_by_address_goes_along_as_data(desk: InProcess, form: str) -> None:
    files(desk).texts = {"https://files.example/a.png": "data:image/png;base64,eA=="}
    assert asked(desk, form, desk.key(), body(form, user(form, picture(form, "address")))).status == 200
    (message,) = desk.client.chats[0].body["messages"]
    assert message["content"][0] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}


FAILURES = [
    (InvalidRequest, 400),
    (Conflict, 409),
    (BodyTooLarge, 413),
    (RateLimited, 429),
    (Unavailable, 503),
]


@in_all_formats
@MODES
@pytest.mark.parametrize(("kind", "status"), FAILURES)
def test_a_failure_is_an_error_of_the_format_and_costs_nothing(
    desk: InProcess, form: str, stream: bool, kind: type[GatewayError], status: int
) -> None:
    where = place(form, 0, 0)
    files(desk).failure = kind(f"{where}: it failed", param=where)
    key = desk.key(1)
    given = body(form, user(form, document(form, "address")), stream=stream)
    answer = asked(desk, form, key, given)
    assert answer.status == status, answer.body
    error = answer.json["error"]
    assert where in error["message"]
    if form == "messages":
        assert answer.json["type"] == "error"
    else:
        assert error["param"] == where
    assert credits(desk, key) == (1, 0)
    assert not desk.client.chats
    assert files(desk).open == 0


def test_clients_know_an_unreadable_document_by_its_words(desk: InProcess) -> None:
    """With them Claude Code takes the document out of the conversation (its source, 2026-10)."""
    where = f"{place('messages', 0, 0)}.source.data"
    files(desk).failure = InvalidRequest(f"{where}: the document has no text", param=where)
    answer = asked(
        desk, "messages", desk.key(), body("messages", user("messages", document("messages", "bytes")))
    )
    assert answer.json["error"]["message"].startswith("The PDF specified was not valid")


@in_all_formats
def test_a_store_that_is_down_is_not_the_clients_fault(desk: InProcess, form: str) -> None:
    files(desk).failure = StoreDown("down")
    key = desk.key(1)
    assert asked(desk, form, key, body(form, user(form, document(form, "address")))).status == 503
    assert credits(desk, key) == (1, 0)


@in_all_formats
def test_another_accounts_file_is_no_file(desk: InProcess, form: str) -> None:
    owner, stranger = desk.key(), desk.key()
    files(desk).kept[desk.account(owner).id, "file-1"] = "a secret text"
    given = body(form, user(form, document(form, "file-1")))
    assert asked(desk, form, owner, given).status == 200
    answer = asked(desk, form, stranger, given)
    assert answer.status == 404
    assert "secret" not in answer.body.decode()
    assert len(desk.client.chats) == 1
    pictured = asked(desk, form, stranger, body(form, user(form, picture(form, "file-1"))))
    assert pictured.status == 404


@in_all_formats
def test_what_is_gone_of_an_earlier_turn_does_not_end_the_session(desk: InProcess, form: str) -> None:
    files(desk).texts = {}
    history = [user(form, document(form, "address")), {"role": "assistant", "content": "A."}]
    answer = asked(desk, form, desk.key(), body(form, *history, user(form)))
    assert answer.status == 200, answer.body
    (first, *_) = desk.client.chats[0].body["messages"]
    assert first["content"][0]["text"].startswith("[A ")


@in_all_formats
def test_what_a_tool_gave_and_cannot_be_read_is_reported(desk: InProcess, form: str) -> None:
    files(desk).texts = {}
    given = body(form, user(form), *result(form, document(form, "address"), picture(form, "address")))
    assert asked(desk, form, desk.key(), given).status == 200
    content = desk.client.chats[0].body["messages"][-1]["content"]
    assert [part["text"].split(" was")[0] for part in content][1] == "[A picture"


@in_all_formats
def test_the_turn_is_bound_to_the_token_that_has_its_files(form: str) -> None:
    tokens = tuple(f"sk-upstream-{number}" for number in range(4))
    with InProcess(moonshot_api_key=tokens) as desk:
        bound = desk.running.pool.all()[2]
        desk.running.gateway.files = Files(token=bound.id)
        key = desk.key()
        for number in range(6):
            given = body(form, user(form, document(form, "address"), words=f"{number}?"))
            assert asked(desk, form, key, given).status == 200
        used = {sent.headers["authorization"] for sent in desk.client.chats}
        assert used == {f"Bearer {bound.secret}"}


@in_all_formats
def test_a_document_counts_in_the_window(form: str) -> None:
    """The upstream counts it, since an estimate comes near the window."""
    with InProcess() as desk:
        long = "word " * 105_000
        desk.running.gateway.files = Files(texts={ADDRESS: long})
        desk.client.answer = lambda sent: told({"data": {"total_tokens": len(json.dumps(sent.body)) // 4}})
        key = desk.key(1)
        given = body(form, user(form, document(form, "address")), model="kimi-k2")
        answer = asked(desk, form, key, given)
        assert answer.status == 400, answer.body
        words = "prompt is too long" if form == "messages" else "maximum context length"
        assert words in answer.json["error"]["message"]
        assert credits(desk, key) == (1, 0)
        assert not desk.client.chats


@in_all_formats
def test_a_shape_error_is_found_before_anything_is_fetched(desk: InProcess, form: str) -> None:
    key = desk.key(1)
    given = body(form, user(form, document(form, "address")), temperature=9)
    assert asked(desk, form, key, given).status == 400
    assert files(desk).asked == []
    assert desk.run(desk.store.usage(0, desk.account(key).id)) == []


@in_all_formats
def test_a_model_that_takes_no_pictures_says_so_before_any_fetch(form: str, tmp_path: Any) -> None:
    row = {"id": "words", "upstream": "words", "window": 9000, "max_output": 900, "refuse_output": 900}
    table = tmp_path / "models.json"
    table.write_text(json.dumps({"models": [row | {"media": False}]}))
    with InProcess(models=table) as desk:
        desk.running.gateway.files = Files()
        key = desk.key(1)
        for source in ("address", "bytes", "file-1"):
            given = body(form, user(form, picture(form, source)), model="words")
            answer = asked(desk, form, key, given)
            assert answer.status == 400, answer.body
            assert "takes no pictures" in answer.json["error"]["message"]
            assert files(desk).asked == []
            assert desk.client.chats == []
            assert credits(desk, key) == (1, 0)
        for source in ("address", "bytes"):
            given = body(form, user(form), *result(form, picture(form, source)), model="words")
            assert asked(desk, form, desk.key(), given).status == 200
            assert files(desk).asked == []
            sent = json.dumps(desk.client.chats[-1].body)
            assert "image_url" not in sent
            assert "takes no pictures" in sent


@in_all_formats
def test_counting_reads_nothing(desk: InProcess, form: str) -> None:
    counts = {"messages": "/v1/messages/count_tokens", "responses": "/v1/responses/input_tokens"}
    if form not in counts:
        return
    key = desk.key()
    plain = desk.call("POST", counts[form], body(form, user(form)), key).json["input_tokens"]
    given = body(form, user(form, document(form, "address"), picture(form, "address")))
    counted = desk.call("POST", counts[form], given, key).json["input_tokens"]
    assert counted >= plain + 2 * 1024
    assert files(desk).asked == []
    assert all("attachment" not in json.dumps(sent.body) for sent in desk.client.sent)


def request(desk: InProcess, form: str, key: str) -> Request:
    raw = json.dumps(body(form, user(form, document(form, "address")))).encode()

    async def read() -> bytes:
        return raw

    headers = Headers((("authorization", f"Bearer {key}"), ("content-type", "application/json")))
    return Request("POST", PATHS[form], headers, "req_1", read, "192.0.2.1")


@in_all_formats
def test_a_client_that_leaves_meanwhile_pays_nothing(desk: InProcess, form: str) -> None:
    key = desk.key(1)
    held = files(desk)

    async def leave() -> None:
        held.wait, held.entered = asyncio.Event(), asyncio.Event()
        asking = asyncio.create_task(desk.router.handle(request(desk, form, key)))
        await held.entered.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    desk.run(leave())
    assert held.open == 0
    assert credits(desk, key) == (1, 0)
    assert not desk.client.chats


def test_the_budget_of_time_is_one_for_all(desk: InProcess) -> None:
    async def wait() -> None:
        held = Files(wait=asyncio.Event())
        model = (await desk.running.gateway.registry.resolve("kimi-k3", never)).model
        given = body("chat", user("chat", document("chat", "address")))
        async with flow.AsyncExitStack() as stack:
            with pytest.raises(Unavailable):
                await flow.resolve(held, "acc", attached("chat", given), model, stack, budget=0.01)
        assert held.open == 0

    async def never() -> bool:
        return False

    desk.run(wait())


@in_all_formats
def test_a_failed_chat_gives_up_the_files_of_its_turn(form: str) -> None:
    with InProcess() as desk:
        desk.running.gateway.files = Files()
        desk.client.answer = lambda sent: told({"error": {"message": "no", "type": "invalid"}}, 400)
        key = desk.key(1)
        assert asked(desk, form, key, body(form, user(form, document(form, "address")))).status == 400
        assert files(desk).open == 0
        assert credits(desk, key) == (1, 0)


def test_an_answer_that_is_gone_on_from_keeps_its_document_and_its_picture(desk: InProcess) -> None:
    files(desk).texts = {ADDRESS: "one", "https://files.example/a.png": "ms://gone-after-the-turn"}
    key = desk.key()
    parts = [document("responses", "address"), picture("responses", "address")]
    first = asked(desk, "responses", key, body("responses", user("responses", *parts))).json
    beginning = desk.client.chats[-1].body["messages"]
    files(desk).texts = {"https://files.example/a.png": "ms://another"}  # the document's address is gone
    more = body("responses", user("responses", words="And?"), previous_response_id=first["id"])
    answer = asked(desk, "responses", key, more)
    assert answer.status == 200, answer.body
    later = desk.client.chats[-1].body["messages"]
    assert later[0] == beginning[0]
    assert later[1]["content"][0] == {"type": "image_url", "image_url": {"url": "ms://another"}}
    assert text("chat", "What is it?") in later[1]["content"]
