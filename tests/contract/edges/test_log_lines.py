"""Every line that is written for a request names it, on each edge, whichever task or thread writes it."""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.edges import EDGES, Case
from support.fault_table import WHOLE
from support.formats import FORMATS, RESPONSES
from support.live import LiveGateway
from upstream import ErrorEvent, ScriptedUpstream


def lines_of(gateway: LiveGateway, begins: str) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for line in map(json.loads, gateway.log.getvalue().splitlines()):
        if line.get("request_id", "").startswith(begins):
            found[line["request_id"]].append(line)
    return found


@pytest.mark.parametrize("edge", EDGES)
def test_the_lines_of_requests_that_run_at_once_are_told_apart(
    gateway: LiveGateway, upstream: ScriptedUpstream, edge: str
) -> None:
    upstream.always(ErrorEvent(3, inner=WHOLE))
    key, before = gateway.key(), len(gateway.log.getvalue())
    cases = {
        f"{edge}/{name}/{stream}": (format, format.asked(stream=stream))
        for name, format in FORMATS.items()
        for stream in (True, False)
    }
    ids = list(cases)

    def ask(id: str) -> None:
        format, body = cases[id]
        case = Case(0, "POST", format.path, json.dumps(body).encode())
        headers = [("content-type", "application/json"), ("authorization", f"Bearer {key}")]
        EDGES[edge](gateway, case, [*headers, ("x-request-id", id)])

    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(ask, ids))
    gateway.until(lambda: len(gateway.lines("request")) and set(lines_of(gateway, edge)) == set(ids))
    gateway.until(
        lambda: all("request" in str(lines[-1]["event"]) for lines in lines_of(gateway, edge).values())
    )
    found = lines_of(gateway, edge)
    for id, lines in found.items():
        assert [line["event"] for line in lines] == ["attempt_failed", "request"], id
        assert lines[-1]["id"] == id
    admissions = {lines[-1]["admission_id"] for lines in found.values()}
    assert len(admissions) == len(ids)
    assert all(json.loads(line).get("request_id") for line in gateway.log.getvalue()[before:].splitlines())


def test_a_line_from_a_thread_names_the_request_too(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.always(WHOLE)
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "x" * 70_000}
    question = {"role": "user", "content": "Hello"}
    with gateway.client(gateway.key(), {"x-request-id": "large"}) as client:
        body = {"model": "kimi-k3", "input": [item, question]}
        assert client.post(RESPONSES.path, json=body).status_code == 200
    gateway.until(lambda: lines_of(gateway, "large"))
    assert "item_left_out" in [line["event"] for line in lines_of(gateway, "large")["large"]]


def test_a_line_outside_of_requests_names_none(gateway: LiveGateway) -> None:
    (started,) = gateway.lines("started")
    assert "request_id" not in started
