"""A receiver of OTLP/HTTP with JSON that reads what it gets with OpenTelemetry's own messages."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = ("traceId", "spanId", "parentSpanId")


class Receiver:
    """`answers` are statuses and headers of the next answers; after them all get 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, len(self.requests)
            time.sleep(0.005)

    def spans(self) -> list[Any]:
        """All spans, each with its resource."""
        found = []
        for path, _, body in list(self.requests):
            if path.endswith("/v1/traces"):
                read = json_format.ParseDict(_as_protobuf(json.loads(body)), ExportTraceServiceRequest())
                for each in read.resource_spans:
                    found += [span for scope in each.scope_spans for span in scope.spans]
        return found

    def metrics(self) -> dict[str, Any]:
        """The latest export, by name."""
        body = [body for path, _, body in list(self.requests) if path.endswith("/v1/metrics")][-1]
        read = json_format.ParseDict(json.loads(body), ExportMetricsServiceRequest())
        scopes = [scope for each in read.resource_metrics for scope in each.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


def _as_protobuf(value: Any) -> Any:
    """OTLP writes ids as hex where protobuf's JSON has base64; everything else is the same."""
    if isinstance(value, dict):
        return {
            name: base64.b64encode(bytes.fromhex(each)).decode() if name in IDS else _as_protobuf(each)
            for name, each in value.items()
        }
    return [_as_protobuf(each) for each in value] if isinstance(value, list) else value


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers["content-length"]))
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status, more, answer = receiver.answers.pop(0) if receiver.answers else (200, {}, b"{}")
            if status < 300:
                receiver.requests.append((self.path, headers, body))
            self.send_response(status)
            for name, value in {**more, "content-length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    return Handler
