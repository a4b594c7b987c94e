"""The ways in which an upstream can fail, by name, each with what it must come to."""

from __future__ import annotations

from dataclasses import dataclass

from upstream import (
    RESET,
    BigEvent,
    Cut,
    ErrorEvent,
    HeaderFlood,
    HtmlError,
    Insert,
    Malformed,
    NoDone,
    Pieces,
    ResetBeforeHeaders,
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
    `kept`: the answer was read to its end, so its connection stays for the next request. `alone`: it is the
    token's fault, so that other requests with the token would change what this one meets. `stale`: on a kept
    connection such an attempt is not counted.
    """

    step: Step
    code: Code = UNAVAILABLE
    tries: int = 1
    begun: bool = False
    kept: bool = False
    alone: bool = False
    stale: bool = False
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
    "401 wrong key": refused(401, "incorrect_api_key_error", "Incorrect API key: ak-0123456789", alone=True),
    "401 wrong region": refused(401, "invalid_authentication_error", "Invalid Authentication", alone=True),
    "401 without a body": Fault(Status(401), kept=True, alone=True),
    "402 membership": Fault(Status(402, error("payment_required", "expired")), kept=True, alone=True),
    "403 permission": refused(403, "permission_denied_error", "The API you are accessing is not open"),
    "404 model of the catalog": refused(404, "resource_not_found_error", "Not found the model kimi-k3"),
    "404 page": Fault(HtmlError(404), kept=True),
    "429 overloaded": limited("engine_overloaded", tries=2, shown=1),
    "429 overloaded, after 0": limited("engine_overloaded", tries=2, shown=1, retry_after=0),
    "429 overloaded, after 7": limited("engine_overloaded", shown=7, retry_after=7),
    "429 quota": Fault(rate_limited("exceeded_current_quota"), kept=True, alone=True),
    "429 quota, after 1": Fault(rate_limited("exceeded_current_quota", 1), kept=True, alone=True),
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
    "200 with a JSON 429": refused(200, "rate_limit_reached_error", "after 4 s", LIMITED, retry_after=4),
    "200 with a page": Fault(HtmlError(200), tries=3),
    "reset before the head": Fault(ResetBeforeHeaders(), tries=3, stale=True),
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
    "choices that are a number": Fault(Sse([{"choices": 5}]), tries=3),
    "a finish reason that is no word": Fault(
        Sse([{"choices": [{"index": 0, "delta": {}, "finish_reason": {"a": 1}}]}]), tries=3
    ),
    "an index that is none": Fault(Sse([{"choices": [{"index": "a", "delta": {}}]}]), tries=3),
    "an end without content": Fault(Sse(EVENTS[:1], done=False), tries=3, kept=True),
    "nothing but [DONE]": Fault(Sse([]), tries=3, kept=True),
    "an end without finish or [DONE]": Fault(Sse(EVENTS[:-1], done=False), begun=True, kept=True),
    "error event first": event(0, "server_error", "of org-0123456789", UNAVAILABLE, tries=3),
    "error event before content": event(1, "engine_overloaded_error", "overloaded", LIMITED, tries=2),
    "error event first: rate": event(0, "rate_limit_reached_error", "after 9 s", LIMITED, retry_after=9),
    "error event first: quota": event(0, "exceeded_current_quota_error", "balance", UNAVAILABLE, alone=True),
    "error event first: refusal": event(1, "invalid_request_error", "ak-0123456789", INVALID),
    "error event first: filter": event(1, "content_filter", "high risk", FILTERED),
    "error event by its name": Fault(
        Insert(1, b'event: error\ndata: {"message":"x"}\n\n', WHOLE, rest=False), tries=3
    ),
    "error event that is a text": Fault(Sse([{"error": "<html>nginx"}], done=False), tries=3),
    "error event mid-stream": event(3, "server_error", "of <ak-0123456789>", UNAVAILABLE),
    "error event mid-stream: rate": event(3, "rate_limit_reached_error", "after 9 s", LIMITED, retry_after=9),
    "error event mid-stream: filter": event(3, "content_filter", "high risk", FILTERED),
    "error event mid-stream, then [DONE]": Fault(
        Insert(3, frame(error("server_error", "x")), WHOLE, rest=True), begun=True
    ),
    "an event over the limit first": Fault(BigEvent(LIMIT, 1, WHOLE), tries=3),
    "an event over the limit mid-stream": Fault(BigEvent(LIMIT, 3, WHOLE), begun=True),
    "refused connection": Fault(WHOLE, tries=0, gateway="lonely"),
}  # fmt: skip

# Answers that look odd and are whole.
SERVED: dict[str, Step] = {
    "as it should be": WHOLE,
    "an event of 2 MiB": BigEvent(2 * 2**20, 2, WHOLE),
    "no [DONE], a finish reason": NoDone(WHOLE),
    "silence behind the finish reason": Stall(len(EVENTS), WHOLE),
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
TEXT_OF = {"an event of 2 MiB": TEXT[:8] + "x" * (2 * 2**20) + TEXT[16:]}
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
