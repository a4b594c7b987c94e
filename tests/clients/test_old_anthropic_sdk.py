"""An Anthropic SDK of 2024, which knows of no thinking and sends its key as X-API-Key only."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import SEARCH
from support import ROOT
from support.live import LiveGateway
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
    command = [PYTHON, Path(__file__).with_name("old_anthropic.py"), gateway.url, gateway.key(3)]
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
    text, searched = seen["searched"]
    assert text == TEXT
    kinds = [block["type"] for block in searched["content"]]
    assert kinds == ["server_tool_use", "web_search_tool_result", "text"]
    bad, missing = seen["errors"]["bad"], seen["errors"]["missing"]
    assert (bad[:2], missing[:2]) == (["BadRequestError", 400], ["NotFoundError", 404])
    assert bad[2]["error"]["message"] == "max_tokens: must be at least 1"
