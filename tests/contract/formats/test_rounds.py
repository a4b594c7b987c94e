"""Two rounds of one turn with a tool between them that the gateway runs itself, on real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kimi_gateway.errors import Unavailable
from support.formats import EACH, MODES, Format
from support.live import LiveGateway
from support.planning import RESULT, TOOL, Lookups
from upstream import Gated, Kimi, ScriptedUpstream, Status, error
from upstream.kimi import usage_of

CALLS = Kimi(text="", reasoning="", tools=((TOOL, {"q": "x"}),), usage=usage_of(100, 20))
ANSWERS = Kimi("It is found.", reasoning="", usage=usage_of(150, 30))
SIGNS = {  # of life, while nothing else comes
    "/v1/chat/completions": b": ping\n\n",
    "/v1/messages": b"event: ping\n",
    "/v1/responses": b"event: response.in_progress\n",
}


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(strict=False) as up:
        yield up


@pytest.fixture(scope="module")
def gateway(up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with LiveGateway(folder, up.url, ping_interval=0.02) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def fresh(up: ScriptedUpstream) -> Iterator[None]:
    yield
    up.forget()
    up.requests.clear()


def planned(gateway: LiveGateway, error: Unavailable | None = None) -> Lookups:
    lookups = Lookups(error)
    assert gateway.app.running is not None
    gateway.app.running.gateway.plan = lookups
    return lookups


class Asked:
    """A request whose answer is read in a thread of its own, as it arrives."""

    def __init__(self, gateway: LiveGateway, format: Format, stream: bool, key: str) -> None:
        self.came = b""
        self.status = 0
        self._client = gateway.client(key)
        self._asked = format.path, format.asked(stream=stream)
        self._thread = threading.Thread(target=self._read, name="client")
        self._thread.start()

    def _read(self) -> None:
        path, body = self._asked
        try:
            with self._client.stream("POST", path, json=body) as answer:
                self.status = answer.status_code
                for data in answer.iter_raw():
                    self.came += data
        except (httpx.HTTPError, OSError):
            pass  # it was told to leave

    def text(self) -> str:
        self._thread.join()
        self._client.close()
        return self.came.decode()


@EACH
@MODES
def test_a_tool_runs_between_two_rounds_and_the_client_pays_once(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, stream: bool
) -> None:
    lookups, key = planned(gateway), gateway.key()
    up.plan(CALLS, ANSWERS)
    asked = Asked(gateway, format, stream, key)
    gateway.until(lambda: lookups.planners and lookups.planners[0].steps)
    if stream:  # the tool is still at work, and the client hears of it
        gateway.until(lambda: asked.came.count(SIGNS[format.path]) >= 3)
    assert len(up.chats) == 1
    assert b"found" not in asked.came
    gateway.call(lookups.may_go.set)
    told = format.read(asked.text(), stream)
    assert (told.content, told.finishes, told.whole) == ("It is found.", [format.stop], True)
    assert TOOL.encode() not in asked.came
    assert lookups.planners[0].steps == ['begin {"q": "x"}', "end", "no more"]
    first, second = (chat.body["messages"] for chat in up.chats)
    assert second[: len(first)] == first
    assert [each["role"] for each in second[len(first) :]] == ["assistant", "tool"]
    assert second[-1]["content"] == RESULT
    gateway.nothing_left(key)
    (row,) = gateway.usage(key)
    assert (row.requests, row.errors, row.credits, row.input, row.output) == (1, 0, 1, 250, 50)
    assert gateway.account(key).credits == 99
    line = gateway.lines("request")[-1]
    assert (line["attempts"], len(line["upstream_tokens"]), line["outcome"]) == (2, 2, "settled")
    assert (line["input_tokens"], line["output_tokens"]) == (250, 50)


@EACH
def test_usage_of_all_rounds_is_told_to_the_client(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format
) -> None:
    lookups, key = planned(gateway), gateway.key()
    gateway.call(lookups.may_go.set)
    up.plan(CALLS, CALLS, ANSWERS)
    with gateway.client(key) as client:
        usage = client.post(format.path, json=format.asked()).json()["usage"]
    told = usage.get("prompt_tokens", usage.get("input_tokens"))
    assert (told, usage.get("completion_tokens", usage.get("output_tokens"))) == (350, 70)
    assert len(up.chats) == 3


@EACH
@MODES
@pytest.mark.parametrize("fault", ["the tool", "the second round"])
def test_a_turn_that_breaks_between_or_in_later_rounds_costs_nothing(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, stream: bool, fault: str
) -> None:
    trouble = Unavailable("The lookup is out of order.", cause="lookup") if fault == "the tool" else None
    lookups, key = planned(gateway, trouble), gateway.key()
    gateway.call(lookups.may_go.set)
    up.always(Status(500, error("server_error", "Oh.")))
    up.plan(CALLS)
    asked = Asked(gateway, format, stream, key)
    text = asked.text()
    told = format.read(text, stream and asked.status == 200)
    assert told.error is not None
    assert told.finishes == []
    gateway.nothing_left(key)
    (row,) = gateway.usage(key)
    assert (row.requests, row.errors, gateway.account(key).credits) == (0, 1, 100)
    assert len(up.chats) == (1 if fault == "the tool" else 4)  # three attempts of the second round


def test_a_later_round_is_tried_again_like_the_first(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    lookups, key = planned(gateway), gateway.key()
    gateway.call(lookups.may_go.set)
    up.plan(CALLS, Status(500, error("server_error", "Oh.")), ANSWERS)
    assert gateway.chat(key).json()["choices"][0]["message"]["content"] == "It is found."
    assert len(up.chats) == 3
    assert gateway.account(key).credits == 99


@EACH
@pytest.mark.parametrize("shown", [False, True], ids=["nothing shown", "content shown"])
def test_a_client_that_leaves_pays_for_what_it_was_shown(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, shown: bool
) -> None:
    lookups, key = planned(gateway), gateway.key()
    second = Gated(ANSWERS)
    second.let(2)  # its role, and the first word
    up.plan(CALLS, second)
    body = format.asked(stream=True)
    with gateway.client(key) as client, client.stream("POST", format.path, json=body) as answer:
        coming = answer.iter_raw()
        next(coming)
        gateway.until(lambda: lookups.planners and lookups.planners[0].steps)
        if shown:
            gateway.call(lookups.may_go.set)
            came = b""
            while b"It" not in came:
                came += next(coming)
    gateway.nothing_left(key)
    assert gateway.account(key).credits == (99 if shown else 100)
    assert lookups.planners[0].steps[-1] == ("end" if shown else "cancelled")
