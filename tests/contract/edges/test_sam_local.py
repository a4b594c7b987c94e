"""`sam local`'s function: Mangum over the FastAPI application, called as Lambda's own runtime calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from support import api_gateway
from support.live import events
from support.runtime_api import ROOT

HOST = [("Host", "127.0.0.1:3000")]
CALLS = """
import json, local, sys
for event in json.load(sys.stdin):
    print(json.dumps(local.handler(event, None)))
"""


def call(tmp_path: Path, *requests: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT / "infra"), str(ROOT / "functions")]),
        "KIMI_GATEWAY_DATA": str(tmp_path / "data"),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-c", CALLS], env=environ, input=json.dumps(requests), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *printed, _ = [*done.stdout.splitlines(), ""]
    answers = [json.loads(line) for line in printed if line.startswith("{")]
    return answers, done.stdout


def test_each_event_is_answered_by_the_application(tmp_path: Path) -> None:
    (ping, docs, refused), out = call(
        tmp_path,
        api_gateway.event("GET", "/ping", HOST),
        api_gateway.event("GET", "/openapi.json", HOST),
        api_gateway.event("POST", "/v1/chat/completions", HOST, b"{}"),
    )
    assert (ping["statusCode"], ping["body"]) == (200, "pong")
    assert "/v1/chat/completions" in json.loads(docs["body"])["paths"]
    assert (refused["statusCode"], json.loads(refused["body"])["error"]["code"]) == (401, "invalid_api_key")
    assert out.count("Your key, unlimited") == 1


def test_its_state_lasts_as_long_as_the_container(tmp_path: Path) -> None:
    _, out = call(tmp_path, api_gateway.event("GET", "/ping", HOST))
    key = re.findall(r"sk-kg-\w+", out)[0]
    body = {"model": "kimi-k3", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    headers = [*HOST, ("Authorization", f"Bearer {key}"), ("Content-Type", "application/json")]
    chat = api_gateway.event("POST", "/v1/chat/completions", headers, json.dumps(body).encode())
    (one, two), out = call(tmp_path, chat, chat)
    assert (one["statusCode"], two["statusCode"]) == (200, 200)
    assert events(one["body"])[-1] == "[DONE]"
    assert "Your key" not in out


def test_the_template_names_this_handler_and_only_settings_that_are() -> None:
    from kimi_gateway.settings import FIELDS

    template = (ROOT / "infra" / "local.yaml").read_text()
    assert "Handler: local.handler" in template
    named = re.findall(r"^ {10}([A-Z_]+):", template, re.M)
    assert named
    assert set(named) <= set(FIELDS)
