"""Spans and metrics by OTLP/HTTP, received on a socket and read by OpenTelemetry's own messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.edge.home import otlp_export
from kimi_gateway.observe import sinks, tracers
from support.live import LiveGateway
from support.otlp import Receiver, attributes
from upstream import ScriptedUpstream, Status, error

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "obviously-a-fake-secret"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_METRIC_EXPORT_INTERVAL": "50"}
SAID = "a prompt that nobody else may read"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(
    receiver: Receiver, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    otlp = {
        **QUICK,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={SECRET}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.name=other",
        "OTEL_SERVICE_NAME": "my gateway",
    }
    with LiveGateway(tmp_path_factory.mktemp("traced"), module_upstream.url, otlp=otlp) as gateway:
        yield gateway


def asked(gateway: LiveGateway, receiver: Receiver, headers: dict[str, str], **body: Any) -> list[Any]:
    """A chat with these headers, and its spans: of the request, and of the call upstream."""
    receiver.requests.clear()
    chat = {"model": "kimi-k3", "messages": [{"role": "user", "content": SAID}], **body}
    with gateway.client(gateway.key(), headers) as client:
        client.post("/v1/chat/completions", json=chat)
    receiver.until(receiver.spans)
    return sorted(receiver.spans(), key=lambda span: span.kind)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_has_a_span_and_its_call_upstream_another(
    traced: LiveGateway, receiver: Receiver, upstream: ScriptedUpstream, stream: bool
) -> None:
    request, call = asked(traced, receiver, {"traceparent": PARENT, "tracestate": "a=1,b@c=2"}, stream=stream)
    line = traced.lines("request")[-1]
    assert {span.trace_id.hex() for span in (request, call)} == {TRACE} == {line["trace_id"]}
    assert (request.parent_span_id.hex(), call.parent_span_id) == (SPAN, request.span_id)
    assert (request.name, call.name) == ("POST /v1/chat/completions", "chat kimi-k3")
    assert (request.kind, call.kind) == (2, 3)  # SERVER, CLIENT
    assert request.trace_state == call.trace_state == "a=1,b@c=2"
    assert request.start_time_unix_nano <= call.start_time_unix_nano <= call.end_time_unix_nano
    assert attributes(request)["kimi_gateway.request.id"] == line["request_id"]
    of_call = attributes(call)
    assert of_call["gen_ai.operation.name"] == "chat"
    assert of_call["gen_ai.provider.name"] == "moonshot_ai"
    assert of_call["gen_ai.request.model"] == "kimi-k3"
    assert of_call["gen_ai.request.stream"] is stream
    assert of_call["gen_ai.usage.input_tokens"] == line["input_tokens"]
    assert of_call["gen_ai.usage.output_tokens"] == line["output_tokens"]
    assert ("gen_ai.response.time_to_first_chunk" in of_call) is stream
    sent = upstream.requests[-1].headers
    assert sent["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert sent["tracestate"] == "a=1,b@c=2"
    _, headers, body = receiver.requests[0]
    assert (headers["content-encoding"], headers["x-api-key"]) == ("gzip", SECRET)
    assert headers["content-type"] == "application/json"
    assert b'"my gateway"' in body
    assert b"deployment.environment.name" in body
    assert SAID.encode() not in body
    assert SECRET not in traced.log.getvalue()


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00-xyz",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}-more",
        f"00-{TRACE}-{SPAN}-1",
        PARENT + "0" * 5_000,
    ],
)
def test_a_wrong_traceparent_counts_as_missing(
    traced: LiveGateway, receiver: Receiver, upstream: ScriptedUpstream, parent: str
) -> None:
    request, call = asked(traced, receiver, {"traceparent": parent, "tracestate": "a=1"})
    assert request.trace_id.hex() != TRACE
    assert (request.parent_span_id, request.trace_state) == (b"", "")
    assert upstream.requests[-1].headers["traceparent"].split("-")[1] == request.trace_id.hex()
    assert "tracestate" not in upstream.requests[-1].headers


def test_a_caller_that_does_not_sample_is_followed(
    traced: LiveGateway, receiver: Receiver, upstream: ScriptedUpstream
) -> None:
    receiver.requests.clear()
    with traced.client(traced.key(), {"traceparent": PARENT[:-1] + "0"}) as client:
        client.post(
            "/v1/chat/completions", json={"model": "kimi-k3", "messages": [{"role": "user", "content": "x"}]}
        )
    assert upstream.requests[-1].headers["traceparent"].endswith("-00")
    asked(traced, receiver, {})
    assert TRACE not in {span.trace_id.hex() for span in receiver.spans()}


@pytest.mark.parametrize("stream", [True, False])
def test_each_of_several_attempts_has_a_span(
    traced: LiveGateway, receiver: Receiver, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.plan(Status(500, error("server_error", "no")))
    asked(traced, receiver, {}, stream=stream)
    line = traced.lines("request")[-1]
    assert (line["status"], line["attempts"]) == (200, 2)
    by_name = {span.name: span for span in receiver.spans()}
    call, first, second = by_name["chat kimi-k3"], by_name["attempt 1"], by_name["attempt 2"]
    assert {first.parent_span_id, second.parent_span_id} == {call.span_id}
    assert {first.trace_id, second.trace_id} == {call.trace_id}
    assert len({span.span_id for span in by_name.values()}) == len(by_name) == 4
    assert (first.status.code, second.status.code) == (2, 0)
    assert call.start_time_unix_nano <= first.start_time_unix_nano <= first.end_time_unix_nano
    assert first.end_time_unix_nano <= second.start_time_unix_nano <= second.end_time_unix_nano
    assert second.end_time_unix_nano == call.end_time_unix_nano
    told = [attributes(span)["kimi_gateway.token.id"] for span in (first, second)]
    assert told == line["upstream_tokens"]
    assert attributes(first)["error.type"] == "server"
    assert "error.type" not in attributes(second)


def test_a_failed_request_says_why(
    traced: LiveGateway, receiver: Receiver, upstream: ScriptedUpstream
) -> None:
    upstream.plan(Status(400, {"error": {"message": "no", "type": "invalid_request_error"}}))
    request, call = asked(traced, receiver, {})
    cause = traced.lines("request")[-1]["cause"]
    assert (attributes(call)["error.type"], call.status.code) == (cause, 2)
    assert (attributes(request)["http.response.status_code"], request.status.code) == (400, 0)


def test_metrics_have_the_names_of_the_conventions(traced: LiveGateway, receiver: Receiver) -> None:
    asked(traced, receiver, {})
    receiver.requests.clear()
    receiver.until(lambda: any(path == "/v1/metrics" for path, _, _ in receiver.requests))
    read = receiver.metrics()
    usage = read["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    assert usage.histogram.aggregation_temporality == 2
    of = {attributes(point)["gen_ai.token.type"]: point for point in usage.histogram.data_points}
    assert set(of) == {"input", "output"}
    point = of["input"]
    assert sum(point.bucket_counts) == point.count > 0
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    named = attributes(point)
    assert (named["gen_ai.operation.name"], named["gen_ai.provider.name"]) == ("chat", "moonshot_ai")
    assert named["gen_ai.request.model"] == "kimi-k3"
    for name in ("gen_ai.server.time_to_first_token", "gen_ai.client.operation.duration"):
        assert read[name].unit == "s"
    assert read["kimi_gateway.requests"].sum.is_monotonic
    assert read["kimi_gateway.requests_running"].gauge.data_points


def test_an_export_is_repeated_while_the_receiver_is_busy_and_dropped_where_it_refuses(
    traced: LiveGateway, receiver: Receiver
) -> None:
    receiver.answers = [(503, {"retry-after": "0"}, b""), (429, {"retry-after": "0"}, b"")] * 2
    assert len(asked(traced, receiver, {})) == 2
    receiver.until(lambda: not receiver.answers)
    receiver.answers = [(400, {}, b"")] * 20
    with traced.client(traced.key()) as client:
        client.get("/v1/models")
    traced.until(lambda: traced.lines("otlp_failed"))
    receiver.answers = []
    assert asked(traced, receiver, {})
    traced.until(lambda: traced.lines("otlp_sent"))


def test_a_receiver_that_is_gone_delays_nothing_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens there; the queue is bounded, and the end does not wait for long."""
    otlp = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "OTEL_BSP_MAX_QUEUE_SIZE": "3",
        "OTEL_BSP_SCHEDULE_DELAY": "900000",
    }
    monkeypatch.setattr(otlp_export, "FLUSH", 0.1)
    before = list(sinks), list(tracers)
    with LiveGateway(tmp_path, otlp=otlp) as gateway:
        assert gateway.app.telemetry is not None
        metrics = gateway.app.telemetry.counting.metrics
        with gateway.client(gateway.key()) as client:
            for _ in range(8):
                assert client.get("/v1/models").status_code == 200
        gateway.rest()
        assert metrics.snapshot()["otlp_items_total"]["traces", "dropped"][0] >= 2
    assert [line["count"] for line in gateway.lines("otlp_dropped")] == [6]
    lost = metrics.snapshot()["otlp_items_total"]
    assert {labels: cells[0] for labels, cells in lost.items()} == {("traces", "dropped"): 8}
    assert (sinks, tracers) == before


def test_the_rest_is_sent_when_the_gateway_stops(tmp_path: Path) -> None:
    with Receiver() as receiver:
        otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{receiver.url}/base/", "OTEL_BSP_SCHEDULE_DELAY": "900000"}
        with LiveGateway(tmp_path, otlp=otlp) as gateway, gateway.client(gateway.key()) as client:
            client.get("/v1/models")
            gateway.rest()
            assert receiver.requests == []
        assert sorted(path for path, _, _ in receiver.requests) == ["/base/v1/metrics", "/base/v1/traces"]


def test_nothing_of_it_is_loaded_without_an_endpoint() -> None:
    code = (
        "import sys, kimi_gateway.edge.home.server, kimi_gateway.edge.routes\n"
        "lazy = ('otlp', 'observe.metrics', 'telemetry')\n"
        "print([name for name in sys.modules if any(each in name for each in lazy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
