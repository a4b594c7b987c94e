"""The `llm` command line, a program of other people, with the gateway as one of its models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.live import LiveGateway
from upstream import ScriptedUpstream
from upstream.kimi import TEXT

LLM = Path(sys.executable).with_name("llm")


@pytest.fixture
def home(tmp_path: Path, gateway: LiveGateway) -> Path:
    """Its own folder, as its manual describes it for an OpenAI-compatible server."""
    model = {
        "model_id": "mine",
        "model_name": "kimi-k3",
        "api_base": f"{gateway.url}/v1",
        "api_key_name": "mine",
    }
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # YAML holds JSON
    (tmp_path / "keys.json").write_text(json.dumps({"mine": gateway.key(10)}))
    return tmp_path


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LLM_USER_PATH": str(home)}
    return subprocess.run(
        [LLM, "-m", "mine", *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_prompt_is_answered_as_a_stream(home: Path, upstream: ScriptedUpstream) -> None:
    done = run(home, "Hello")
    assert (done.returncode, done.stdout.strip()) == (0, TEXT), done.stderr
    assert upstream.chats[0].body["messages"][-1] == {"role": "user", "content": "Hello"}


def test_a_prompt_is_answered_at_once_without_streaming(
    home: Path, upstream: ScriptedUpstream, gateway: LiveGateway
) -> None:
    done = run(home, "--no-stream", "Hello")
    assert (done.returncode, done.stdout.strip()) == (0, TEXT), done.stderr
    gateway.until(lambda: gateway.lines("request")[-1]["stream"] is False)


def test_a_wrong_key_is_shown_as_the_gateways_error(home: Path, upstream: ScriptedUpstream) -> None:
    done = run(home, "--key", "sk-kg-" + "x" * 38, "Hello")
    assert done.returncode == 1
    assert "Invalid API key" in done.stderr
    assert not upstream.chats
