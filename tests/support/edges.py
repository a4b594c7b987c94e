"""One request through each edge of a live gateway: its socket, the buffered function, the streamed one."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from kimi_gateway.accounts.values import Limits
from kimi_gateway.edge.aws.function import Function
from kimi_gateway.edge.aws.lambda_runtime import Context, Streamed
from kimi_gateway.edge.aws.lambda_runtime.api import prelude
from support import api_gateway
from support.api_gateway import Answered
from support.live import LiveGateway
from upstream import Step


@dataclass(frozen=True)
class Case:
    status: int
    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    step: Step | None = None
    key: bool = True
    credits: int | None = 100
    limits: Limits | None = None
    asked: int = 1  # the last answer is compared


def asgi(gateway: LiveGateway, case: Case, headers: list[tuple[str, str]]) -> Answered:
    with gateway.client() as client:
        answer = client.request(case.method, case.path, content=case.body, headers=headers)
    pairs = [(name.lower(), value) for name, value in answer.headers.multi_items()]
    return Answered(answer.status_code, pairs, answer.content)


def function(gateway: LiveGateway, case: Case, headers: list[tuple[str, str]], streamed: bool) -> Answered:
    assert gateway.app.running is not None
    handler = Function(streamed=streamed)
    handler.serve(gateway.app.running)
    names = {name for name, _ in headers}
    event = api_gateway.event(
        case.method,
        case.path,
        [*headers, *([] if "host" in names else [("Host", "api.example.com")])],
        case.body,
    )
    context = Context("aws-1", round((time.time() + 60) * 1000))

    async def ask() -> Answered:
        answer = await handler(json.loads(json.dumps(event)), context)
        if not isinstance(answer, Streamed):
            return api_gateway.of_proxy(json.loads(json.dumps(answer)))
        body = answer.body
        sent = body if isinstance(body, bytes) else b"".join([piece async for piece in body])
        await answer.close()
        return api_gateway.of_stream(prelude(answer.status, answer.headers) + sent)

    return gateway.do(ask())


EDGES = {
    "asgi": asgi,
    "buffered": lambda *given: function(*given, streamed=False),
    "streamed": lambda *given: function(*given, streamed=True),
}
