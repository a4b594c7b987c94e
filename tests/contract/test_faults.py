"""Every way an upstream can fail, streamed and not: what the client sees, what it is charged, what is left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contract.exchange import CHARGED, NOT_CHARGED, TYPES, Asked, Seen, ask, held_open, ledger
from live import LiveGateway
from upstream import (
    RESET,
    BigEvent,
    Cut,
    ErrorEvent,
    HeaderFlood,
    HtmlError,
    Insert,
    Kimi,
    Malformed,
    NoDone,
    Pieces,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Silence,
    Sse,
    Stall,
    Status,
    Step,
    chat_events,
    error,
    frame,
    length,
    rate_limited,
)

TEXT = "Hello from Kimi: 你好, ça va? 👋"
EVENTS = chat_events(TEXT)  # role, four pieces of content, finish with usage
WHOLE = Sse(EVENTS)
FRAMES = [frame(event) for event in EVENTS]
WIDE = b"".join(FRAMES).index("你".encode())
LIMIT = 3 * 2**20

Code = tuple[int, str]
UNAVAILABLE = (503, "service_unavailable")
LIMITED = (429, "rate_limit_exceeded")
INVALID = (400, "invalid_request")
FILTERED = (400, "content_filter")
TOO_LONG = (400, "context_length_exceeded")


@dataclass(frozen=True)
class Fault:
    """`tries`: what the upstream must see. `begun`: content went out before, so a stream has its status.
    `kept`: the answer was read to its end, so its connection stays for the next request.
    """

    step: Step
    code: Code = UNAVAILABLE
    tries: int = 1
    begun: bool = False
    kept: bool = False
    retry_after: int = 1
    gateway: str = "patient"
    says: str = ""


def refused(status: int, type: str, message: str, code: Code = UNAVAILABLE, **more: object) -> Fault:
    return Fault(Status(status, error(type, message)), code, kept=True, **more)  # type: ignore[arg-type]


def limited(type: str, *, tries: int = 1, shown: int, **more: object) -> Fault:
    return Fault(rate_limited(type, **more), LIMITED, tries, kept=True, retry_after=shown)  # type: ignore[arg-type]


def event(at: int, type: str, message: str, code: Code, tries: int = 1, **more: object) -> Fault:
    step = ErrorEvent(at, error(type, message), WHOLE)
    return Fault(step, code, tries, begun=at > 1, **more)  # type: ignore[arg-type]


FAULTS: dict[str, Fault] = {
    "401 wrong key": refused(401, "incorrect_api_key_error", "Incorrect API key provided: ak-0123456789"),
    "401 wrong region": refused(401, "invalid_authentication_error", "Invalid Authentication"),
    "401 without a body": Fault(Status(401), kept=True),
    "402 membership": Fault(Status(402, error("payment_required", "expired")), kept=True),
    "403 permission": refused(403, "permission_denied_error", "The API you are accessing is not open"),
    "404 model of the catalog": refused(404, "resource_not_found_error", "Not found the model kimi-k3"),
    "404 page": Fault(HtmlError(404), kept=True),
    "429 overloaded": limited("engine_overloaded", tries=2, shown=1),
    "429 overloaded, after 0": limited("engine_overloaded", tries=2, shown=1, retry_after=0),
    "429 overloaded, after 7": limited("engine_overloaded", shown=7, retry_after=7),
    "429 quota": Fault(rate_limited("exceeded_current_quota"), kept=True),
    "429 quota, after 1": Fault(rate_limited("exceeded_current_quota", 1), kept=True),
    "429 rate, 3 seconds in its text": limited("rate_limit_reached", shown=3),
    "429 rate, after 5, 3 in its text": limited("rate_limit_reached", shown=5, retry_after=5),
    "429 rate, no time": limited(
        "rate_limit_reached", tries=2, shown=1, message="org-0123456789 reached max concurrency: 1"
    ),
    "429 page": Fault(HtmlError(429), LIMITED, 2, kept=True, says="The upstream is rate limited."),
    "500": refused(500, "server_error", "internal of org-0123456789", tries=3),
    "500 unexpected output": refused(500, "unexpected_output", "nonsense", tries=3),
    "500 without a body": Fault(Status(500), tries=3, kept=True),
    "502 page": Fault(HtmlError(502), tries=3, kept=True),
    "503": refused(503, "server_unavailable", "scaling", tries=3),
    "504 page": Fault(HtmlError(504), kept=True),
    "301": Fault(Status(301, b"", {"location": "http://127.0.0.1:9/"}), tries=3, kept=True),
    "400 invalid": refused(
        400, "invalid_request_error", "Invalid request of org-0123456789 <ak-0123456789>", INVALID,
        says="Invalid request of [redacted] [redacted]",
    ),
    "400 context length": refused(
        400, "invalid_request_error", "Your request exceeded model token limit : 1048576", TOO_LONG,
        says="token limit : 1048576",
    ),
    "400 content filter": refused(400, "content_filter", "considered high risk", FILTERED, says="high risk"),
    "400 page": Fault(HtmlError(400), INVALID, kept=True, says="The upstream refused the request."),
    "200 with a JSON error": refused(200, "server_error", "oops", tries=3),
    "200 with a JSON refusal": refused(200, "invalid_request_error", "no such tool", INVALID),
    "200 with a JSON 429": refused(200, "rate_limit_reached_error", "after 4 seconds", LIMITED, retry_after=4),
    "200 with a page": Fault(HtmlError(200), tries=3),
    "reset before the head": Fault(ResetBeforeHeaders(), tries=3),
    "silence before the head": Fault(Silence(), gateway="hasty"),
    "header flood": Fault(HeaderFlood(2**20), tries=3),
    "cut behind the head": Fault(Cut(0, WHOLE), tries=3),
    "cut before content": Fault(Cut(100, WHOLE), tries=3),
    "reset before content": Fault(Cut(100, WHOLE, RESET), tries=3),
    "cut after content": Fault(Cut(WIDE - 200, WHOLE), begun=True),
    "cut inside a character": Fault(Cut(WIDE + 1, WHOLE), begun=True),
    "stall before the first event": Fault(Stall(0, WHOLE), gateway="hasty"),
    "stall before content": Fault(Stall(1, WHOLE), gateway="hasty"),
    "stall after content": Fault(Stall(3, WHOLE), begun=True, gateway="hasty"),
    "malformed first": Fault(Malformed(0, WHOLE), tries=3),
    "malformed mid-stream": Fault(Malformed(3, WHOLE), begun=True),
    "no object": Fault(Sse([[1, 2]]), tries=3),
    "choices of a strange shape": Fault(Sse([{"choices": {"index": 0}}]), tries=3),
    "an index that is none": Fault(Sse([{"choices": [{"index": "a", "delta": {}}]}]), tries=3),
    "an end without content": Fault(Sse(EVENTS[:1], done=False), tries=3, kept=True),
    "an end without finish or [DONE]": Fault(Sse(EVENTS[:-1], done=False), begun=True, kept=True),
    "error event first": event(0, "server_error", "of org-0123456789", UNAVAILABLE, tries=3),
    "error event before content": event(1, "engine_overloaded_error", "overloaded", LIMITED, tries=2),
    "error event first: rate": event(0, "rate_limit_reached_error", "after 9 s", LIMITED, retry_after=9),
    "error event first: quota": event(0, "exceeded_current_quota_error", "balance", UNAVAILABLE),
    "error event first: refusal": event(1, "invalid_request_error", "ak-0123456789", INVALID),
    "error event first: filter": event(1, "content_filter", "high risk", FILTERED),
    "error event by its name": Fault(Insert(1, b'event: error\ndata: {"message":"x"}\n\n', WHOLE, False), tries=3),
    "error event that is a text": Fault(Sse([{"error": "<html>nginx"}], done=False), tries=3),
    "error event mid-stream": event(3, "server_error", "of <ak-0123456789>", UNAVAILABLE),
    "error event mid-stream: rate": event(3, "rate_limit_reached_error", "after 9 s", LIMITED),
    "error event mid-stream: filter": event(3, "content_filter", "high risk", FILTERED),
    "error event mid-stream, then [DONE]": Fault(Insert(3, frame(error("server_error", "x")), WHOLE, True), begun=True),
    "an event over the limit first": Fault(BigEvent(LIMIT, 1, WHOLE), tries=3),
    "an event over the limit mid-stream": Fault(BigEvent(LIMIT, 3, WHOLE), begun=True),
    "refused connection": Fault(WHOLE, tries=0, gateway="lonely"),
}  # fmt: skip

# Answers that look odd and are whole.
SERVED: dict[str, Step] = {
    "as it should be": WHOLE,
    "an event of 2 MiB": BigEvent(2 * 2**20, 2, WHOLE),
    "no [DONE], a finish reason": NoDone(WHOLE),
    "cut behind the finish reason": Cut(length(FRAMES), WHOLE),
    "reset behind [DONE]": Cut(length(FRAMES) + len(b"data: [DONE]\n\n"), WHOLE, RESET),
    "usage of nulls": Sse(chat_events(TEXT, usage={"prompt_tokens": None, "completion_tokens": None})),
    "no choices and no usage": Insert(2, frame({"choices": []}) + FRAMES[2], WHOLE, rest=True),
    "choices null": Insert(2, frame({"choices": None}) + FRAMES[2], WHOLE, rest=True),
    "comments and blank lines": Insert(2, b": keep-alive\n\n\n\n" + FRAMES[2], WHOLE, rest=True),
    "CRLF": Sse([each.replace(b"\n", b"\r\n") for each in FRAMES]),
    "seven bytes at a time": Pieces(7, WHOLE),
    "finish reasons that are empty": Sse([*chat_events(TEXT, finish="")[:-1], EVENTS[-1]]),
}
# What goes well in the end: the faults of the first attempts.
RECOVERED: dict[str, tuple[Step, ...]] = {
    "500": (Status(500),),
    "503 twice": (Status(503), Status(503)),
    "502 page": (HtmlError(502),),
    "429 overloaded, after 0": (rate_limited("engine_overloaded", 0),),
    "reset before the head": (ResetBeforeHeaders(),),
    "cut before content": (Cut(300, WHOLE),),
    "cut before content twice": (Cut(100, WHOLE, RESET), Cut(300, WHOLE)),
    "malformed first": (Malformed(1, WHOLE),),
    "error event before content": (ErrorEvent(1, None, WHOLE),),
    "200 with a JSON error": (Status(200, error("server_error", "x")),),
    "an event over the limit": (BigEvent(LIMIT, 1, WHOLE),),
    "header flood": (HeaderFlood(2**20),),
    "an end without content": (Sse(EVENTS[:1], done=False),),
    "each another way": (Malformed(0, WHOLE), ResetBeforeHeaders()),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def up(upstream: ScriptedUpstream) -> ScriptedUpstream:
    upstream.forget()
    return upstream


@pytest.fixture(scope="module")
def gateways(
    upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, LiveGateway]]:
    """`hasty` waits for little, `lonely` has nobody at its upstream's address."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        lonely = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        data = tmp_path_factory.mktemp
        with (
            LiveGateway(data("patient"), upstream.url, event_limit=LIMIT) as patient,
            LiveGateway(data("hasty"), upstream.url, first_byte_timeout=0.7, idle_timeout=0.4) as hasty,
            LiveGateway(data("lonely"), lonely) as alone,
        ):
            yield {"patient": patient, "hasty": hasty, "lonely": alone}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_in_the_right_shape_and_never_charged(
    up: ScriptedUpstream, gateways: dict[str, LiveGateway], fault: Fault, stream: bool
) -> None:
    gateway = gateways[fault.gateway]
    up.always(fault.step)
    asked = ask(gateway, up, stream)
    if stream and fault.begun:
        tells_in_the_stream(asked.seen, fault)
    else:
        tells_by_status(asked.seen, fault)
    assert len(asked.requests) == fault.tries
    assert ledger(gateway, asked.key) == NOT_CHARGED
    connections_are_right(up, asked, fault)


def tells_by_status(seen: Seen, fault: Fault) -> None:
    status, code = fault.code
    assert (seen.status, seen.streamed) == (status, False), seen.text
    is_the_error(seen, fault)
    after = str(fault.retry_after) if status in (429, 503) else None
    assert seen.headers.get("retry-after") == after
    assert seen.headers["x-credits-remaining"] == "100"
    assert seen.headers["x-ratelimit-limit"] == "20"
    assert seen.headers["x-request-id"]


def tells_in_the_stream(seen: Seen, fault: Fault) -> None:
    assert (seen.status, seen.streamed, seen.done) == (200, True, False), seen.text
    assert seen.content
    assert TEXT.startswith(seen.content)
    assert seen.finishes == []
    assert seen.headers["x-credits-remaining"] == "99"  # the reservation, as of the head
    is_the_error(seen, fault)


def is_the_error(seen: Seen, fault: Fault) -> None:
    status, code = fault.code
    assert seen.error is not None
    assert (seen.error["type"], seen.error["code"]) == (TYPES[status], code)
    assert fault.says in seen.error["message"]
    assert set(seen.error) == {"message", "type", "param", "code"}


def connections_are_right(up: ScriptedUpstream, asked: Asked, fault: Fault) -> None:
    if fault.kept:
        assert held_open(up, asked.requests)
    else:
        up.until(lambda: not held_open(up, asked.requests), 1.0)
    if isinstance(fault.step, Stall) or fault.step == Silence():
        assert asked.requests[0].closed_early.is_set()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("step", SERVED.values(), ids=SERVED)
def test_an_odd_answer_that_is_whole_is_served_whole_and_charged_once(
    up: ScriptedUpstream, gateways: dict[str, LiveGateway], step: Step, stream: bool
) -> None:
    up.always(step)
    asked = ask(gateways["patient"], up, stream)
    expected = TEXT if not isinstance(step, Insert) or b"xxx" not in step.frame else None
    is_served(gateways["patient"], asked, stream, expected)
    assert len(asked.requests) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_silence_behind_the_finish_reason_ends_a_whole_answer(
    up: ScriptedUpstream, gateways: dict[str, LiveGateway], stream: bool
) -> None:
    up.always(Stall(len(EVENTS), WHOLE))
    asked = ask(gateways["hasty"], up, stream)
    is_served(gateways["hasty"], asked, stream, TEXT)
    assert asked.requests[0].closed_early.wait(1.0)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("steps", RECOVERED.values(), ids=RECOVERED)
def test_a_fault_before_content_is_tried_again_unseen(
    up: ScriptedUpstream, gateways: dict[str, LiveGateway], steps: tuple[Step, ...], stream: bool
) -> None:
    up.plan(*steps)
    up.always(WHOLE)
    asked = ask(gateways["patient"], up, stream)
    is_served(gateways["patient"], asked, stream, TEXT)
    assert len(asked.requests) == len(steps) + 1
    if stream:
        roles = [choice["delta"].get("role") for choice in asked.seen.choices]
        assert roles == ["assistant", None, None, None, None, None]


def is_served(gateway: LiveGateway, asked: Asked, stream: bool, content: str | None) -> None:
    """`content` None: too long to be compared by the test's report."""
    seen = asked.seen
    assert (seen.status, seen.streamed, seen.done) == (200, stream, True), seen.text[:2000]
    assert seen.error is None
    assert seen.finishes == ["stop"]
    if content is None:
        assert seen.content.count("x") == 2 * 2**20
    else:
        assert seen.content == content
    assert seen.headers["x-credits-remaining"] == "99"
    assert ledger(gateway, asked.key) == CHARGED


def test_what_is_left_of_all_the_faults_is_nothing(
    up: ScriptedUpstream, gateways: dict[str, LiveGateway]
) -> None:
    """One client at a time has needed one connection at a time, of each gateway."""
    for gateway in gateways.values():
        gateway.nothing_left()
        assert gateway.lines("crash") == []
        assert gateway.lines("lease_gone") == []
    up.until(lambda: up.open_connections <= 2)
