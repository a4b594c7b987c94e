"""The runtime's process: how it starts and fails to, many invocations at once, a snapshot, its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.runtime_api import RuntimeApi, Worker

HANDLER = "support.lambda_handlers.protocol.handler"


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    with RuntimeApi() as api:
        yield api


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("support.lambda_handlers.missing.handler", "Function.ModuleNotFoundError"),
        ("support.lambda_handlers.protocol.missing", "Function.AttributeError"),
    ],
)
def test_a_handler_that_cannot_be_imported_is_an_init_error(
    api: RuntimeApi, tmp_path: Path, handler: str, kind: str
) -> None:
    with Worker(api, handler, tmp_path / "log") as worker:
        assert worker.ended() == 1
    (posted,) = api.other
    assert posted.path == "init/error"
    assert posted.headers["lambda-runtime-function-error-type"] == kind
    assert posted.json["stackTrace"]
    assert "GET invocation/next" not in api.log


def test_a_start_that_fails_is_an_init_error(api: RuntimeApi, tmp_path: Path) -> None:
    with Worker(api, HANDLER, tmp_path / "log", FAILS_IN="start") as worker:
        assert worker.ended() == 1
    (posted,) = api.other
    assert (posted.path, posted.json["errorMessage"]) == ("init/error", "start went wrong")


def test_many_invocations_run_at_once_in_one_process_and_know_who_they_are(
    api: RuntimeApi, tmp_path: Path
) -> None:
    with Worker(api, HANDLER, tmp_path / "log", AWS_LAMBDA_MAX_CONCURRENCY="4") as worker:
        worker.until(lambda: api.log.count("GET invocation/next") == 4)
        # Each waits for three others: fewer than four at once would never end.
        invocations = [api.invoke({"do": "where", "meets": 4}) for _ in range(8)]
        answers = [invocation.answer().json for invocation in invocations]
        happened = worker.invoke({"do": "happened"}).json
    for invocation, answer in zip(invocations, answers, strict=True):
        for seen in (answer["before"], answer["after"]):
            assert seen["request_variable"] == seen["request"] == invocation.id
            assert seen["trace_variable"] == f"Root=1-{invocation.id}"
            assert seen["trace_environ"] is None
            assert seen["process"] == worker.process.pid
    assert "idle" not in happened  # such a process is never frozen


def test_an_extension_that_wants_no_events_is_ready_before_the_first_invocation(
    api: RuntimeApi, tmp_path: Path
) -> None:
    """Lambda sends SIGTERM only to a function that has one, and registers none after the first `next`."""
    with Worker(api, HANDLER, tmp_path / "log") as worker:
        worker.invoke({"do": "echo"})
        worker.until(lambda: api.ready)
        ((id, posted),) = api.extensions.items()
    assert api.ready == {id}
    assert (posted.json, posted.headers["lambda-extension-name"]) == ({"events": []}, "lambda-runtime")


def test_a_platform_without_extensions_is_served_all_the_same(tmp_path: Path) -> None:
    with RuntimeApi(extension_status=403) as api, Worker(api, HANDLER, tmp_path / "log") as worker:
        assert worker.invoke({"do": "echo"}).json == {"do": "echo"}
        worker.terminate()
        assert worker.ended() == -signal.SIGKILL
        assert "no extension, so no SIGTERM: status 403" in worker.log


def test_sigterm_while_idle_ends_the_process_in_good_order(api: RuntimeApi, tmp_path: Path) -> None:
    with Worker(api, HANDLER, tmp_path / "log") as worker:
        worker.invoke({"do": "echo"})
        worker.until(lambda: api.log.count("GET invocation/next") == 2)
        worker.terminate()
        assert worker.ended() == 0
        assert worker.log.split() == ["stopped", "after", "start", "idle", "closing", "stop"]


def test_sigterm_lets_what_runs_end_and_takes_nothing_new(api: RuntimeApi, tmp_path: Path) -> None:
    with Worker(api, HANDLER, tmp_path / "log", AWS_LAMBDA_MAX_CONCURRENCY="3") as worker:
        waiting = api.invoke({"do": "wait", "name": "a"})
        worker.until(lambda: api.log.count("GET invocation/next") == 3 and "a waits" in worker.log)
        worker.terminate()
        assert waiting.answer().json == "told to end"
        assert worker.ended() == 0
    assert api.log.count("GET invocation/next") == 3


def test_sigterm_ends_also_what_does_not_end(api: RuntimeApi, tmp_path: Path) -> None:
    with Worker(api, HANDLER, tmp_path / "log") as worker:
        streaming = api.invoke({"do": "stream", "pieces": 3, "gap": 300})
        worker.until(lambda: streaming.posts and streaming.posts[0].streamed)
        worker.terminate()
        assert worker.ended() == 0
        assert "stopped after" in worker.log
        assert worker.log.index("body ended") < worker.log.index("closed") < worker.log.rindex("stop")
    assert not streaming.posts[0].whole


def test_a_snapshot_is_taken_between_two_hooks(api: RuntimeApi, tmp_path: Path) -> None:
    snap = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    with Worker(api, HANDLER, tmp_path / "log", **snap) as worker:
        worker.until(lambda: api.log == ["GET restore/next"])
        api.restore.set()
        happened = worker.invoke({"do": "happened"}).json
        assert happened == ["start", "before_snapshot", "after_restore"]
    assert api.log[:2] == ["GET restore/next", "GET invocation/next"]


@pytest.mark.parametrize(
    ("hook", "path", "code"),
    [("before_snapshot", "init/error", 64), ("after_restore", "restore/error", 65)],
)
def test_a_hook_of_the_snapshot_that_fails_is_reported(
    api: RuntimeApi, tmp_path: Path, hook: str, path: str, code: int
) -> None:
    api.restore.set()
    snap = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", "FAILS_IN": hook}
    with Worker(api, HANDLER, tmp_path / "log", **snap) as worker:
        assert worker.ended() == code
    (posted,) = api.other
    assert (posted.path, posted.json["errorMessage"]) == (path, f"{hook} went wrong")


def test_a_runtime_api_that_is_gone_ends_the_process(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with RuntimeApi() as api:
            worker = stack.enter_context(Worker(api, HANDLER, tmp_path / "log"))
            worker.until(lambda: "GET invocation/next" in api.log)
        assert worker.ended() == 1
        assert "the Runtime API is lost" in worker.log
