"""The deployed API on a socket: API Gateway's choice of a function by the transformed template, the
function's process on its Runtime API, the answer as the client gets it, piece by piece where it streams.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from infra.cloud import Cloud
from infra.iam import Guard
from infra.reading import Integration, chosen, gateway_response
from support import api_gateway
from support.built import task_root
from support.runtime_api import MARK, Invocation, RuntimeApi, Worker
from support.web import QuietHandler, ThreadedServer

LARGEST_EVENT = 6 * 2**20  # bytes that Lambda takes


class Endpoint(ThreadedServer):
    """`endpoint.url` is what clients are given. A function starts when it is first called, from the built
    artefact, with the environment that the stack resolved, and behind its role for the table.
    """

    def __init__(self, template: Any, folder: Path) -> None:
        self.template = template
        self.cloud: Cloud | None = None
        self.served: list[Integration] = []
        self.guard = Guard(template)
        self._folder = folder
        self._functions: dict[str, RuntimeApi] = {}
        self._starting = threading.Lock()
        self._open = ExitStack()
        endpoint = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.close_connection = True
                self.raw_requestline = self.rfile.readline(65537)
                if self.raw_requestline and self.parse_request():
                    endpoint.serve(self)

        super().__init__(Handler, "endpoint")

    @property
    def url(self) -> str:
        return f"http://{self.target}"

    def __enter__(self) -> Self:
        self._open.enter_context(self.guard)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, exc, traceback)
        self._open.close()

    def log(self, function: str) -> str:
        """What a function wrote, which CloudWatch would take."""
        return (self._folder / f"{function}.log").read_text("utf-8")

    def serve(self, http: BaseHTTPRequestHandler) -> None:
        body = http.rfile.read(int(http.headers.get("content-length", 0)))
        integration = chosen(self.template, http.command, urlsplit(http.path).path)
        self.served.append(integration)
        unpacked = api_gateway.unpacked(http.headers.items(), body)
        event = api_gateway.event(http.command, http.path, http.headers.items(), unpacked)
        if len(json.dumps(event)) > LARGEST_EVENT:
            answer = gateway_response(self.template, "REQUEST_TOO_LARGE")
            _head(http, answer, str(len(answer.body)))
            http.wfile.write(answer.body)
            return
        invocation = self._function(integration.function).invoke(event, integration.timeout / 1000)
        if integration.streaming_uri:
            _streamed(http, invocation)
        else:
            answer = api_gateway.of_proxy(invocation.answer(30).json)
            _head(http, answer, str(len(answer.body)))
            http.wfile.write(answer.body)

    def _function(self, name: str) -> RuntimeApi:
        with self._starting:
            if name not in self._functions:
                assert self.cloud is not None
                told = self.cloud.function(name)
                environ = told["Environment"]["Variables"]
                root = task_root()
                wrapper = environ["AWS_LAMBDA_EXEC_WRAPPER"].replace("/var/task", str(root))
                api = self._open.enter_context(RuntimeApi())
                self.guard.url = self.cloud.url
                own = {"LAMBDA_TASK_ROOT": str(root), **self.cloud.credentials, **environ}
                own["AWS_ENDPOINT_URL_DYNAMODB"] = self.guard.url_of(name)
                self._open.enter_context(
                    Worker(
                        api,
                        told["Handler"],
                        self._folder / f"{name}.log",
                        (),
                        (wrapper, sys.executable),
                        **own,
                    )
                )
                self._functions[name] = api
            return self._functions[name]


def _head(http: BaseHTTPRequestHandler, answer: api_gateway.Answered, length: str | None) -> None:
    http.send_response_only(answer.status)
    for name, value in answer.headers:
        http.send_header(name, value)
    http.send_header("connection", "close")
    if length is not None:
        http.send_header("content-length", length)
    http.end_headers()


def _streamed(http: BaseHTTPRequestHandler, invocation: Invocation) -> None:
    """Each chunk as it is posted; the end is the connection's."""
    sent, head = 0, b""
    while True:
        whole = invocation.done.done()
        chunks = invocation.posts[-1].chunks[sent:] if invocation.posts else []
        sent += len(chunks)
        data = b"".join(chunk for _, chunk in chunks)
        if MARK in head:
            http.wfile.write(data)
        else:
            head += data
            if MARK in head:
                answer = api_gateway.of_stream(head)
                _head(http, answer, None)
                http.wfile.write(answer.body)
        if whole:
            return
        time.sleep(0.005)
