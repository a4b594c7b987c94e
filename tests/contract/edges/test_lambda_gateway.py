"""The gateway's functions on their runtime: what API Gateway, the ledger and the upstream see of them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import api_gateway
from support.api_gateway import Answered
from support.attaching import PATHS, body, document, user
from support.error_shape import openai_error
from support.fault_table import TEXT, WHOLE
from support.live import HELLO, events, text_of
from support.resolving import pdf
from support.runtime_api import ROOT, Invocation, Posted, RuntimeApi, Worker
from support.server_process import StoreAtHome
from upstream import Cut, Gated, ScriptedUpstream, Silence, Stall, Status, error

CHAT = "/v1/chat/completions"


class Deployed(StoreAtHome):
    """One function's process, the store that it shares with others, and its upstream."""

    def __init__(self, data: Path, upstream: str, handler: str, **environ: str) -> None:
        super().__init__(data)
        self.api = RuntimeApi()
        named = {"KIMI_GATEWAY_DATA": str(self.settings.data), "KIMI_BASE_URL": upstream}
        self.worker = Worker(
            self.api, handler, data / "log", MOONSHOT_API_KEY="sk-upstream-1", **named, **environ
        )

    def __enter__(self) -> Deployed:
        self.api.__enter__()
        self.worker.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.worker.__exit__(*exc)
        self.api.__exit__(*exc)

    def send(
        self, method: str, path: str, key: str | None = None, body: object = None, seconds: float = 60
    ) -> Invocation:
        headers = [("Host", "api.example.com"), ("Content-Type", "application/json")]
        headers += [("Authorization", f"Bearer {key}")] if key else []
        raw = b"" if body is None else json.dumps(body).encode()
        return self.api.invoke(api_gateway.event(method, path, headers, raw), seconds)

    def chat(self, key: str | None, seconds: float = 60, **more: Any) -> Invocation:
        return self.send("POST", CHAT, key, {"model": "kimi-k3", "messages": HELLO} | more, seconds)


def answered(invocation: Invocation) -> Answered:
    posted = invocation.answer()
    assert posted.path.endswith("/response"), posted.body
    assert posted.trailers == {}
    if "lambda-runtime-function-response-mode" in posted.headers:
        return api_gateway.of_stream(posted.body)
    return api_gateway.of_proxy(posted.json)


def begun(invocation: Invocation, upstream: ScriptedUpstream) -> Posted:
    upstream.until(lambda: invocation.posts and b"\0" * 8 in invocation.posts[0].body)
    return invocation.posts[0]


def attached(form: str, words: str) -> dict[str, Any]:
    """A PDF in the words of the format."""
    data = base64.b64encode(pdf(words)).decode()
    if form == "messages":
        source = {"type": "base64", "media_type": "application/pdf", "data": data}
        return {"type": "document", "source": source}
    file = {"file_data": f"data:application/pdf;base64,{data}", "filename": "a.pdf"}
    return {"type": "file", "file": file} if form == "chat" else {"type": "input_file", **file}


@pytest.fixture(scope="module")
def hasty(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """It begins a late answer with blanks, after less than half a second."""
    folder = tmp_path_factory.mktemp("hasty")
    hasty = "support.lambda_handlers.hasty.handler"
    with Deployed(folder, module_upstream.url, hasty, **SEVERAL) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def patient(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """The function as it is deployed, for answers that are to come without blanks."""
    folder = tmp_path_factory.mktemp("patient")
    handler = "handlers.chat_completions.handler"
    with Deployed(folder, module_upstream.url, handler, **SEVERAL) as deployed:
        yield deployed


SEVERAL = {"AWS_LAMBDA_MAX_CONCURRENCY": "8"}  # so that a test need not wait for the one before


def test_a_stream_leaves_chunk_by_chunk_and_is_settled_before_its_end(
    hasty: Deployed, upstream: ScriptedUpstream
) -> None:
    gate = Gated(WHOLE)
    upstream.plan(gate)
    key = hasty.key(5)
    invocation = hasty.chat(key, stream=True)
    gate.let(2)
    posted = begun(invocation, upstream)
    upstream.until(lambda: b"Hello" in posted.body)
    assert not posted.whole
    assert hasty.account(key).reserved == 1
    gate.let(100)
    upstream.until(lambda: b"[DONE]" in posted.body)
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (4, 0)
    answer = answered(invocation)
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert text_of(answer.body.decode()) == TEXT


def test_many_streams_run_in_one_process_at_once(hasty: Deployed, upstream: ScriptedUpstream) -> None:
    gates = [Gated(WHOLE) for _ in range(8)]
    upstream.plan(*gates)
    key = hasty.key()
    invocations = [hasty.chat(key, stream=True) for _ in gates]
    for gate in gates:
        gate.let(2)
    for invocation in invocations:
        begun(invocation, upstream)
    for gate in gates:
        gate.let(100)
    assert {text_of(answered(invocation).body.decode()) for invocation in invocations} == {TEXT}
    assert hasty.account(key).credits == 92


@pytest.mark.parametrize("stream", [True, False])
def test_an_early_error_has_its_status(patient: Deployed, upstream: ScriptedUpstream, stream: bool) -> None:
    refused = answered(patient.chat(None, stream=stream))
    assert (refused.status, openai_error(refused.json)["code"]) == (401, "invalid_api_key")
    upstream.always(Status(400, error("invalid_request_error", "Bad tool")))
    key = patient.key(5)
    broken = answered(patient.chat(key, stream=stream))
    assert (broken.status, openai_error(broken.json)["code"]) == (400, "invalid_request")
    assert broken.header("x-request-id") == "0f9a4b5e-0000-4000-8000-5d2a4c6b7e8f"
    assert (patient.account(key).credits, patient.account(key).reserved) == (5, 0)


def test_a_broken_stream_ends_with_an_error_event_and_costs_nothing(
    hasty: Deployed, upstream: ScriptedUpstream
) -> None:
    upstream.always(Cut(700, WHOLE))
    key = hasty.key(5)
    answer = answered(hasty.chat(key, stream=True))
    assert answer.status == 200
    last = events(answer.body.decode())[-1]
    assert openai_error(json.loads(last))["code"] == "service_unavailable"
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (5, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_silent_upstream_is_an_error_before_the_deadline(
    hasty: Deployed, upstream: ScriptedUpstream, stream: bool
) -> None:
    """No blanks yet: the deadline comes before the patience ends."""
    upstream.always(Silence())
    key = hasty.key(5)
    answer = answered(hasty.chat(key, 2.05, stream=stream))
    assert (answer.status, openai_error(answer.json)["code"]) == (503, "service_unavailable")
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (5, 0)


def test_a_stream_ends_with_an_error_event_before_the_deadline(
    hasty: Deployed, upstream: ScriptedUpstream
) -> None:
    upstream.always(Stall(3, WHOLE))
    key = hasty.key(5)
    answer = answered(hasty.chat(key, 3, stream=True))
    *content, last = events(answer.body.decode())
    assert content
    assert "longer than" in openai_error(json.loads(last))["message"]
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (5, 0)


def test_a_json_answer_that_takes_its_time_begins_with_blanks(
    hasty: Deployed, upstream: ScriptedUpstream
) -> None:
    gate = Gated(WHOLE)
    upstream.plan(gate)
    key = hasty.key(5)
    invocation = hasty.chat(key)
    posted = begun(invocation, upstream)
    upstream.until(lambda: posted.streamed.count(b" ") >= 3)
    assert len([data for _, data in posted.chunks if data == b" "]) >= 3, "each by itself"
    gate.let(100)
    answer = answered(invocation)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.body.startswith(b"   ")
    assert answer.json["choices"][0]["message"]["content"] == TEXT
    assert answer.header("access-control-allow-origin") == "*"
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (4, 0)


def test_a_quick_json_answer_has_no_blanks(patient: Deployed, upstream: ScriptedUpstream) -> None:
    assert answered(patient.chat(patient.key())).body.startswith(b"{")


def test_what_fails_behind_the_blanks_is_an_error_object_and_costs_nothing(
    hasty: Deployed, upstream: ScriptedUpstream
) -> None:
    gate = Gated(Status(400, error("invalid_request_error", "Bad tool")))
    upstream.always(gate)
    key = hasty.key(5)
    invocation = hasty.chat(key)
    posted = begun(invocation, upstream)
    upstream.until(lambda: b" " in posted.streamed)
    gate.let(100)
    answer = answered(invocation)
    assert (answer.status, answer.body[:1]) == (200, b" ")
    assert openai_error(answer.json)["code"] == "invalid_request"
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (5, 0)


def test_a_deadline_behind_the_blanks_is_an_error_object(hasty: Deployed, upstream: ScriptedUpstream) -> None:
    upstream.always(Stall(3, WHOLE))
    key = hasty.key(5)
    answer = answered(hasty.chat(key, 3))
    assert (answer.status, answer.body[:1]) == (200, b" ")
    assert openai_error(answer.json)["code"] == "service_unavailable"
    assert (hasty.account(key).credits, hasty.account(key).reserved) == (5, 0)


def test_an_answer_that_nobody_takes_is_the_upstreams_no_longer(
    hasty: Deployed, upstream: ScriptedUpstream
) -> None:
    """410 says that the invocation is over; blanks were being written for it."""
    upstream.always(Stall(3, WHOLE))
    key = hasty.key(5)
    event = api_gateway.event(
        "POST", CHAT, [("Authorization", f"Bearer {key}")],
        json.dumps({"model": "kimi-k3", "messages": HELLO}).encode(),
    )  # fmt: skip
    hasty.api.invoke(event, refused=413)
    upstream.until(lambda: len(upstream.chats) == 1)
    assert upstream.chats[0].closed_early.wait(60)
    upstream.until(lambda: hasty.account(key).reserved == 0)


def test_sigterm_ends_streams_with_an_error_event_and_no_charge(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.always(Stall(3, WHOLE))
    with Deployed(tmp_path, up.url, "handlers.chat_completions.handler") as deployed:
        key = deployed.key(5)
        invocation = deployed.chat(key, stream=True)
        posted = begun(invocation, up)
        up.until(lambda: b"Hello" in posted.body)
        deployed.worker.terminate()
        answer = answered(invocation)
        assert "restarting" in openai_error(json.loads(events(answer.body.decode())[-1]))["message"]
        assert deployed.worker.ended() == 0
        assert (deployed.account(key).credits, deployed.account(key).reserved) == (5, 0)


PLACES = {
    "models": ("GET", "/v1/models", 200),
    "token_check": ("POST", "/token/check", 400),
    "account": ("GET", "/user/credits", 200),
}


@pytest.mark.parametrize("name", PLACES)
def test_each_other_function_serves_its_paths(up: ScriptedUpstream, tmp_path: Path, name: str) -> None:
    method, path, status = PLACES[name]
    with Deployed(tmp_path, up.url, f"handlers.{name}.handler") as deployed:
        key = deployed.key()
        assert answered(deployed.send(method, path, key, {})).status == status
        elsewhere = answered(deployed.send("GET", CHAT, key))
        assert elsewhere.status == (405 if name == "account" else 404)
        lines = [json.loads(line) for line in deployed.worker.log.splitlines()]
        logged = [line for line in lines if line["event"] == "request"]
        assert [line["status"] for line in logged] == [status, elsewhere.status]
        assert logged[0]["aws_request_id"].startswith("request-")


def test_wrong_settings_are_an_init_error_that_names_them(up: ScriptedUpstream, tmp_path: Path) -> None:
    wrong = {"KIMI_GATEWAY_DRAIN": "soon"}
    with Deployed(tmp_path, up.url, "handlers.models.handler", **wrong) as deployed:
        assert deployed.worker.ended() == 1
        (posted,) = deployed.api.other
    assert posted.path == "init/error"
    assert "KIMI_GATEWAY_DRAIN" in posted.json["errorMessage"]


NEVER = (
    "aws_lambda_powertools.event_handler", "boto3", "botocore.session", "click", "fastapi", "httpx", "httpx2",
    "mangum", "pydantic", "requests", "sqlite3", "starlette", "uvicorn",
)  # fmt: skip


@pytest.mark.parametrize("name", ["chat_completions", "models", "token_check", "account"])
def test_a_function_loads_what_it_needs(name: str) -> None:
    code = f"import sys, handlers.{name}\nprint([name for name in {NEVER!r} if name in sys.modules])"
    environ = os.environ | {"PYTHONPATH": str(ROOT / "functions")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_wrapper_starts_the_loop_with_lambdas_interpreter(tmp_path: Path) -> None:
    given = (str(ROOT / "functions" / "stream"), sys.executable, "/var/runtime/bootstrap.py")
    environ = {"LAMBDA_TASK_ROOT": str(ROOT / "functions"), "KIMI_GATEWAY_DATA": str(tmp_path / "data")}
    with (
        RuntimeApi() as api,
        Worker(api, "handlers.account.handler", tmp_path / "log", (), given, **environ),
    ):
        assert answered(api.invoke(api_gateway.event("GET", "/ping"))).body == b"pong"


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_document_is_read_and_nothing_of_it_stays(
    patient: Deployed, upstream: ScriptedUpstream, form: str, stream: bool
) -> None:
    key = patient.key(2)
    upstream.files.uploads = upstream.files.deletions = 0
    asked = body(form, user(form, attached(form, f"{form} {stream}")), stream=stream)
    answer = answered(patient.send("POST", PATHS[form], key, asked))
    assert answer.status == 200, answer.body
    document, _ = upstream.chats[0].body["messages"]
    assert document["content"].endswith(f"{form} {stream}")
    upstream.until(lambda: upstream.files.deletions == upstream.files.uploads == 1)
    assert (patient.account(key).credits, patient.account(key).reserved) == (1, 0)


@pytest.mark.parametrize("form", PATHS)
def test_a_file_of_nobody_costs_nothing(patient: Deployed, upstream: ScriptedUpstream, form: str) -> None:
    key = patient.key(1)
    asked = body(form, user(form, document(form, "file-nobody")))
    answer = answered(patient.send("POST", PATHS[form], key, asked))
    assert answer.status == 404, answer.body
    assert (patient.account(key).credits, patient.account(key).reserved) == (1, 0)
    assert not upstream.chats
