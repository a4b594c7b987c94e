"""What the home server adds to uvicorn, and what must hold whatever a client puts on the wire."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.live import HELLO, LiveGateway
from support.wire import talk
from upstream import Kimi, ScriptedUpstream


@pytest.mark.parametrize(
    "pieces",
    [(b"nonsense\r\n\r\n",), (b"GET /ping HTTP/1.1\r\nhost: x\r\nx: ", *[b"a" * 60_000] * 10)],
    ids=["not HTTP", "a head without end"],
)
def test_what_is_no_request_gets_a_json_400_and_a_closed_connection(
    tmp_path: Path, pieces: tuple[bytes, ...]
) -> None:
    with LiveGateway(tmp_path) as gateway:
        head, _, body = talk(gateway.port, *pieces).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "invalid_request"


def test_a_large_head_and_a_large_body_behind_it_are_served(tmp_path: Path) -> None:
    with LiveGateway(tmp_path) as gateway, gateway.client(gateway.key()) as client:
        for _ in range(3):  # one connection: the bound is of each head, not of all
            body = {"model": "kimi-k3", "messages": HELLO, "metadata": {"x": "y" * 300_000}}
            answer = client.post("/v1/chat/completions", json=body, headers={"x-long": "z" * 60_000})
            assert answer.status_code == 200


def test_one_request_id_for_many_requests_pays_for_each(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(tmp_path, upstream.url) as gateway:
        key = gateway.key(10)
        upstream.always(Kimi(gap=0.05))
        with gateway.client(key, headers={"x-request-id": "mine"}) as client, ThreadPoolExecutor(4) as pool:
            body = {"model": "kimi-k3", "messages": HELLO}
            answers = list(pool.map(lambda _: client.post("/v1/chat/completions", json=body), range(4)))
        assert [answer.headers["x-request-id"] for answer in answers] == ["mine"] * 4
        assert gateway.account(key).credits == 6
        gateway.nothing_left(key)
