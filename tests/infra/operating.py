"""What an operator does with a deployed gateway, and sees of it."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from infra.endpoint import Endpoint
from support.live import HELLO
from support.tls import NO_TLS

PLAIN: Any = {"timeout": 30, "verify": NO_TLS}


def operated(url: str, operator: str) -> str:
    """Work through /admin, from a new account to its end; what is said of upstream tokens."""

    def call(method: str, path: str, **body: Any) -> Any:
        content = json.dumps(body).encode() if body else b""
        headers = {"authorization": f"Bearer {operator}"}
        answer = httpx.request(method, f"{url}/admin{path}", headers=headers, content=content, **PLAIN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chat(key: str) -> int:
        asked = {"model": "kimi-k3", "messages": HELLO}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{url}/v1/chat/completions", json=asked, headers=headers, **PLAIN).status_code

    made = call("POST", "/keys", name="bob", credits=5)
    assert call("POST", f"/accounts/{made['account']}/grant", package="trial")["credits"] == 75
    assert chat(made["key"]) == 200
    assert call("POST", f"/keys/{made['id']}/suspend")["state"] == "suspended"
    assert chat(made["key"]) == 401
    assert call("GET", f"/accounts/{made['account']}")["consumed"] == 1
    rows = call("GET", f"/usage?by=model&account={made['account']}")["data"]
    assert [row["requests"] for row in rows] == [1]
    assert call("DELETE", f"/accounts/{made['account']}")["deleted"]
    (platform,) = call("GET", "/pool")["data"]
    assert len(platform["tokens"]) == 1
    return json.dumps(platform)


def logged(endpoint: Endpoint, id: str) -> Any:
    """The line of a chat, by its request's id."""

    def line() -> Any:
        lines = [json.loads(each) for each in endpoint.log("Chat").splitlines()]
        return next((each for each in lines if each.get("id") == id), None)

    end = time.monotonic() + 60
    while (found := line()) is None:
        assert time.monotonic() < end, endpoint.log("Chat")
        time.sleep(0.05)
    return found
