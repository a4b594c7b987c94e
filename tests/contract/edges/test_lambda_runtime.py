"""The runtime as Lambda sees it: one process against a Runtime API on a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.runtime_api import MARK, Invocation, Posted, RuntimeApi, Worker

ONE_MIB = 2**20


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("lambda") / "log"
    with RuntimeApi() as api, Worker(api, "support.lambda_handlers.protocol.handler", log) as worker:
        yield worker


def text(posted: Posted) -> list[str]:
    return posted.streamed.decode().splitlines()


def test_chunks_arrive_as_they_are_made(worker: Worker, tmp_path: Path) -> None:
    """Each piece is made when the one before has arrived."""
    invocation = worker.api.invoke({"do": "stream", "pieces": 10, "gate": str(tmp_path)})
    for number in range(10):
        worker.until(partial(has_arrived, invocation, number))
        (tmp_path / str(number)).touch()
    assert text(invocation.answer()) == [f"piece {number}" for number in range(10)]


def has_arrived(invocation: Invocation, pieces: int) -> bool:
    """So many, and no more."""
    chunks = [data for posted in invocation.posts for _, data in posted.chunks]
    return sum(data.startswith(b"piece") for data in chunks) == pieces


def test_a_streamed_answer_is_what_api_gateway_reads(worker: Worker) -> None:
    headers = [
        ("Content-Type", "text/event-stream"),
        ("x-two", "a"),
        ("x-two", "b"),
        ("set-cookie", "c=1"),
        ("content-length", "8"),
        ("transfer-encoding", "chunked"),
    ]
    posted = worker.invoke({"do": "stream", "pieces": 1, "status": 201, "headers": headers})
    expected = {
        "statusCode": 201,
        "headers": {"content-type": "text/event-stream"},
        "multiValueHeaders": {"x-two": ["a", "b"]},
        "cookies": ["c=1"],
    }
    assert posted.chunks[0][1] == json.dumps(expected, separators=(",", ":")).encode() + MARK
    assert posted.streamed == b"piece 0\n"
    assert posted.path.endswith("/response")
    assert posted.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    assert posted.headers["lambda-runtime-function-response-mode"] == "streaming"
    assert posted.headers["transfer-encoding"] == "chunked"
    assert posted.headers["trailer"].split(", ") == [
        "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body",
    ]  # fmt: skip
    assert (posted.whole, posted.trailers) == (True, {})


def test_an_early_error_is_a_streamed_answer_with_its_status(worker: Worker) -> None:
    error = '{"error": {"message": "no"}}'
    posted = worker.invoke({"do": "stream", "status": 429, "headers": [("retry-after", "1")], "whole": error})
    assert posted.prelude == {"statusCode": 429, "headers": {"retry-after": "1"}}
    assert posted.streamed.decode() == error


def test_an_answer_without_a_body_is_whole(worker: Worker) -> None:
    posted = worker.invoke({"do": "stream", "status": 204, "whole": ""})
    assert (posted.prelude["statusCode"], posted.streamed, posted.whole) == (204, b"", True)


def test_a_body_that_breaks_ends_with_trailers(worker: Worker) -> None:
    posted = worker.invoke({"do": "stream", "pieces": 5, "fails_after": 2})
    assert text(posted) == ["piece 0", "piece 1"]
    assert posted.whole
    assert posted.trailers["lambda-runtime-function-error-type"] == "Function.RuntimeError"
    assert posted.failure["errorMessage"] == "the middle is missing"
    assert any("pieces" in line for line in posted.failure["stackTrace"])


def test_a_head_over_16_kib_is_an_error_before_the_first_byte(worker: Worker) -> None:
    posted = worker.invoke({"do": "stream", "pieces": 1, "headers": [("x-long", "x" * 16_400)]})
    assert posted.path.endswith("/error")
    assert "16384 is the most" in posted.json["errorMessage"]


def test_a_crash_is_an_error_with_its_trace_and_nothing_of_the_event(worker: Worker) -> None:
    posted = worker.invoke({"do": "fail", "secret": "sk-never-to-be-seen"})
    assert posted.path.endswith("/error")
    assert posted.headers["lambda-runtime-function-error-type"] == "Function.LookupError"
    assert (posted.json["errorType"], posted.json["errorMessage"]) == ("LookupError", "no such thing")
    assert any("protocol.py" in line for line in posted.json["stackTrace"])
    assert b"sk-never" not in posted.body
    assert "sk-never" not in worker.log


def test_what_a_handler_waits_for_may_be_cancelled_without_the_loop_ending(worker: Worker) -> None:
    posted = worker.invoke({"do": "cancelled"})
    assert posted.headers["lambda-runtime-function-error-type"] == "Function.CancelledError"
    posted = worker.invoke({"do": "stream", "pieces": 3, "cancelled_after": 2})
    assert text(posted) == ["piece 0", "piece 1"]
    assert posted.trailers["lambda-runtime-function-error-type"] == "Function.CancelledError"
    assert worker.invoke({"do": "where"}).json["before"]["process"] == worker.process.pid


@pytest.mark.parametrize("event", [{"do": "unwritable"}, b"not JSON"])
def test_what_is_not_json_is_an_error(worker: Worker, event: object) -> None:
    assert worker.invoke(event).path.endswith("/error")


def test_a_plain_answer_is_one_json_post(worker: Worker) -> None:
    event = {"do": "echo", "text": "Grüße \ud800"}
    posted = worker.invoke(event)
    assert (posted.path.endswith("/response"), posted.json) == (True, event)
    assert "lambda-runtime-function-response-mode" not in posted.headers


def test_an_event_of_6_mib_arrives_whole(worker: Worker) -> None:
    event = {"do": "echo", "text": "x" * (6 * ONE_MIB - 100)}
    assert worker.invoke(event).json == event


def test_invocations_follow_each_other_on_one_connection_and_one_process(worker: Worker) -> None:
    answers = [worker.invoke({"do": "where"}, Lambda_Runtime_Aws_Tenant_Id="t") for _ in range(5)]
    seen = [posted.json["before"] for posted in answers]
    assert {one["process"] for one in seen} == {worker.process.pid}
    for posted, one in zip(answers, seen, strict=True):
        id = posted.path.split("/")[1]
        assert (one["request"], one["request_variable"]) == (id, id)
        assert one["trace"] == one["trace_variable"] == one["trace_environ"] == f"Root=1-{id}"
        assert (one["tenant"], one["arn"].rpartition(":")[2]) == ("t", "test")
        assert 40_000 < one["left"] <= 60_000


def test_the_nonce_of_an_invocation_comes_back_with_every_answer(worker: Worker) -> None:
    for event in ({"do": "stream", "pieces": 1}, {"do": "echo"}, {"do": "fail"}):
        invocation = worker.api.invoke(event)
        posted = invocation.answer()
        assert posted.headers["lambda-runtime-invocation-id"] == invocation.nonce


@pytest.mark.parametrize("event", [{"do": "stream", "pieces": 3}, {"do": "echo"}, {"do": "fail"}])
@pytest.mark.parametrize("status", [410, 413])
def test_a_refused_answer_is_logged_and_survived(
    worker: Worker, event: dict[str, object], status: int
) -> None:
    refused = worker.api.invoke(event, refused=status)
    assert worker.invoke({"do": "echo"}).json == {"do": "echo"}
    assert len(refused.posts) == 1
    told = f"the answer of {refused.id} was refused: {status}", f"the answer of {refused.id} was cut"
    assert told[0] in worker.log or status == 413 and told[1] in worker.log  # a reset may take the 413 away


def test_a_stream_refused_in_its_middle_is_given_up(worker: Worker) -> None:
    """Nobody reads it: the upstream should not go on being paid for."""
    refused = worker.api.invoke({"do": "stream", "flood": 300 * ONE_MIB}, refused=413)
    assert worker.invoke({"do": "echo"}).json == {"do": "echo"}
    happened = worker.invoke({"do": "happened"}).json
    assert happened[happened.index(f"closed {refused.id}") - 1] == "body ended"


def test_a_large_stream_arrives_whole(worker: Worker) -> None:
    posted = worker.invoke({"do": "stream", "flood": 20 * ONE_MIB})
    assert (posted.whole, len(posted.streamed)) == (True, 20 * ONE_MIB)


def test_a_handler_that_does_not_end_is_ended_before_the_deadline(worker: Worker) -> None:
    posted = worker.invoke({"do": "sleep", "seconds": 600}, seconds=1.3)
    assert posted.path.endswith("/error")
    assert posted.headers["lambda-runtime-function-error-type"] == "Function.DeadlineExceeded"


def test_a_stream_that_does_not_end_is_ended_before_the_deadline(worker: Worker) -> None:
    posted = worker.invoke({"do": "stream", "pieces": 2, "gap": 300}, seconds=3)
    assert text(posted) == ["piece 0"]
    assert posted.trailers["lambda-runtime-function-error-type"] == "Function.DeadlineExceeded"


def test_each_answer_is_closed_once_before_the_next_invocation(worker: Worker) -> None:
    ids = []
    for event in ({"pieces": 2}, {"pieces": 2, "fails_after": 1}, {"whole": "x"}):
        invocation = worker.api.invoke({"do": "stream", **event})
        invocation.answer()
        ids.append(invocation.id)
    happened = worker.invoke({"do": "happened"}).json
    assert [happened.count(f"closed {id}") for id in ids] == [1, 1, 1]
    first = happened.index(f"closed {ids[0]}")
    assert happened[first : first + 4] == [f"closed {ids[0]}", "idle", "body ended", f"closed {ids[1]}"]
