"""An Anthropic SDK of 2024, which knows of no thinking and sends its key as X-API-Key only."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import SEARCH
from support import ROOT
from support.live import LiveGateway
from support.resolving import PNG, pdf
from upstream import Kimi, Reply, Request, ScriptedUpstream
from upstream.kimi import TEXT

PYTHON = ROOT / ".venv-old-anthropic" / "bin" / "python"


class Researcher:
    """Searches once where it can."""

    def reply(self, request: Request) -> Reply:
        if request.body.get("tools") and request.body["messages"][-1]["role"] != "tool":
            return Kimi(text="", reasoning="", tools=[(SEARCH, {"query": "news"})]).reply(request)
        return Kimi(text=TEXT + "END of it", reasoning="").reply(request)


@pytest.fixture(scope="module")
def installed() -> None:
    subprocess.run([ROOT / "scripts" / "setup", "old-anthropic"], check=True, capture_output=True)


def test_it_streams_and_accumulates_and_raises(
    installed: None, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(Researcher())
    environ = {"PATH": os.environ["PATH"]}
    picture, document = (base64.b64encode(data).decode() for data in (PNG, pdf("Rainfall rose.")))
    script = Path(__file__).with_name("old_anthropic.py")
    command = [PYTHON, script, gateway.url, gateway.key(5), picture, document]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["version"] == "0.25.9"
    assert seen["text"] == TEXT
    whole, summed = seen["whole"], seen["summed"]
    assert whole["content"][0]["text"] == TEXT
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "END")
    assert [summed[name] for name in ("content", "model", "role", "stop_reason", "stop_sequence")] == [
        whole[name] for name in ("content", "model", "role", "stop_reason", "stop_sequence")
    ]
    assert seen["attached"] == [TEXT, TEXT]
    chats = [chat.body["messages"] for chat in upstream.chats if len(chat.body["messages"]) == 4]
    assert len(chats) == 2
    for read, message, _, told in chats:
        assert (read["role"], "Rainfall rose." in read["content"]) == ("system", True)
        for each in (message, told):
            (shown,) = [part for part in each["content"] if part["type"] == "image_url"]
            assert shown["image_url"]["url"] == f"data:image/png;base64,{picture}"
    refused = seen["errors"]["picture"]
    assert refused[:2] == ["BadRequestError", 400]
    assert "messages.0.content.0.source: the data is not valid base64" in refused[2]["error"]["message"]
    text, searched = seen["searched"]
    assert text == TEXT
    kinds = [block["type"] for block in searched["content"]]
    assert kinds == ["server_tool_use", "web_search_tool_result", "text"]
    bad, missing = seen["errors"]["bad"], seen["errors"]["missing"]
    assert (bad[:2], missing[:2]) == (["BadRequestError", 400], ["NotFoundError", 404])
    assert bad[2]["error"]["message"] == "max_tokens: must be at least 1"
