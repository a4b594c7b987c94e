"""Every way an upstream can fail, in each format, streamed and not: what is seen, charged, left behind."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kimi_gateway.flow.attempts import STALE
from support.exchange import CHARGED, NOT_CHARGED, Exchange, Seen, ask, held_open
from support.fault_table import FAULTS, LIMIT, RECOVERED, SERVED, TEXT, TEXT_OF, WHOLE, Fault
from support.formats import EACH, FORMATS, MESSAGES, MODES, Format
from support.live import LiveGateway
from upstream import ByPrompt, ScriptedUpstream, Stall, Status, Step, error
from upstream.server import Request

Gateways = dict[str, LiveGateway]
Name = tuple[str, str, bool, str]  # of the table, of the row, streamed, the path


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateways(up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """`hasty` waits for nothing that never comes, `lonely` has nobody at its upstream's address."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        lonely = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        data = tmp_path_factory.mktemp
        with (
            LiveGateway(data("patient"), up.url, event_limit=LIMIT) as patient,
            LiveGateway(data("hasty"), up.url, first_byte_timeout=60.0, ping_interval=3600.0) as hasty,
            LiveGateway(data("lonely"), lonely) as alone,
        ):
            hasty.never_wait(up, 100)
            yield {"patient": patient, "hasty": hasty, "lonely": alone}


@pytest.fixture(scope="module")
def asked(up: ScriptedUpstream, gateways: Gateways) -> dict[Name, Exchange]:
    """All rows of all tables, told apart by their prompts. Many are asked at a time, since they wait."""
    scripts: dict[Name, tuple[str, tuple[Step, ...]]] = {}
    formats = {format.path: format for format in FORMATS.values()}
    for way in itertools.product((True, False), formats):
        for name, fault in FAULTS.items():
            scripts["fault", name, *way] = fault.gateway, (fault.step,)
        for name, step in SERVED.items():
            patience = "hasty" if isinstance(step, Stall) else "patient"
            scripts["served", name, *way] = patience, (step,)
        for name, steps in RECOVERED.items():
            scripts["recovered", name, *way] = "patient", (*steps, WHOLE)
    up.always(ByPrompt({str(name): steps for name, (_, steps) in scripts.items()}))

    def one(name: Name) -> Exchange:
        return ask(gateways[scripts[name][0]], name[2], str(name), formats[name[3]])

    alone = [
        name
        for name, (of, _) in scripts.items()
        if of == "hasty" or (name[0] == "fault" and FAULTS[name[1]].alone)
    ]
    together = [name for name in scripts if name not in alone]
    with ThreadPoolExecutor(24) as pool:
        answers = dict(zip(together, pool.map(one, together), strict=True))
    answers |= {name: one(name) for name in alone}
    for gateway in gateways.values():
        gateway.nothing_left()
    return answers


@MODES
@EACH
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_in_the_right_shape_and_never_charged(
    up: ScriptedUpstream, asked: dict[Name, Exchange], name: str, format: Format, stream: bool
) -> None:
    fault, one = FAULTS[name], asked["fault", name, stream, format.path]
    if stream and fault.begun:
        tells_in_the_stream(one.seen, fault)
    else:
        tells_by_status(one.seen, fault)
    assert one.ledger == NOT_CHARGED
    requests = one.requests(up)
    stale = [each for each in requests if fault.stale and reused(up, each)]
    counted = len(requests) - min(len(stale), STALE)
    assert counted == fault.tries
    if not fault.kept:
        up.until(lambda: not held_open(up, requests))


def reused(up: ScriptedUpstream, request: Request) -> bool:
    """Whether its connection had brought another request before."""
    return any(
        other.connection == request.connection and other.arrived < request.arrived for other in up.chats
    )


def tells_by_status(seen: Seen, fault: Fault) -> None:
    status, _ = fault.code
    assert (seen.status, seen.streamed) == (status, False), seen.text
    is_the_error(seen, fault)
    after = str(fault.retry_after) if status in (429, 503) else None
    assert seen.headers.get("retry-after") == after
    assert seen.headers["x-credits-remaining"] == "100"
    assert seen.headers["x-ratelimit-limit"] == "20"
    assert seen.headers["x-request-id"]
    assert ("request-id" in seen.headers) == (seen.format is MESSAGES)


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
    assert seen.error["type"] == seen.format.types[status]
    assert seen.error.get("code") == (code if seen.format.codes else None)
    assert fault.says in seen.error["message"]


@MODES
@EACH
@pytest.mark.parametrize("name", SERVED)
def test_an_odd_answer_that_is_whole_is_served_whole_and_charged_once(
    up: ScriptedUpstream, asked: dict[Name, Exchange], name: str, format: Format, stream: bool
) -> None:
    one = asked["served", name, stream, format.path]
    is_served(one.seen, stream)
    assert one.seen.content == TEXT_OF.get(name, TEXT)
    assert len(one.requests(up)) == 1
    assert one.ledger == CHARGED


@MODES
@EACH
@pytest.mark.parametrize("name", RECOVERED)
def test_a_fault_before_content_is_tried_again_unseen(
    up: ScriptedUpstream, asked: dict[Name, Exchange], name: str, format: Format, stream: bool
) -> None:
    one = asked["recovered", name, stream, format.path]
    is_served(one.seen, stream)
    assert one.seen.content == TEXT
    assert len(one.requests(up)) == len(RECOVERED[name]) + 1
    assert one.ledger == CHARGED


def is_served(seen: Seen, stream: bool) -> None:
    assert (seen.status, seen.streamed, seen.done) == (200, stream, True), seen.text[:2000]
    assert seen.error is None
    assert seen.finishes == [seen.format.stop]
    assert seen.headers["x-credits-remaining"] == "99"


@MODES
def test_an_answer_read_to_its_end_leaves_its_connection_to_the_next(
    up: ScriptedUpstream, gateways: Gateways, asked: dict[Name, Exchange], stream: bool
) -> None:
    refusals = (
        Status(401),
        Status(400, error("content_filter", "no")),
        Status(429, b"", {"retry-after": "9"}),
    )
    up.always(WHOLE)
    first = ask(gateways["patient"], stream)
    gateways["patient"].nothing_left(first.key)
    before = up.accepted
    for step in refusals:
        up.plan(step)
        ask(gateways["patient"], stream)
    assert up.accepted == before


def test_a_silent_upstream_is_left(up: ScriptedUpstream, asked: dict[Name, Exchange]) -> None:
    for (_, name, *_), one in asked.items():
        if name.startswith(("stall", "silence")):
            (request,) = one.requests(up)
            assert request.closed_early.is_set(), name


def test_what_all_the_faults_leave_behind_is_nothing(gateways: Gateways, asked: dict[Name, Exchange]) -> None:
    for gateway in gateways.values():
        gateway.nothing_left()
        assert gateway.lines("crash") == []
        assert gateway.lines("lease_gone") == []
