"""LiteLLM's SDK, as an OpenAI endpoint and as its own provider for this vendor."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs.stage import WRONG, Stage, written
from upstream import ToolLoop

PROGRAM = Path(__file__).with_name("program.py")


def run(stage: Stage, model: str, key: str) -> tuple[int, str, str]:
    maker = model.partition("/")[0].upper()
    named = {f"{maker}_API_BASE": f"{stage.url}/v1", f"{maker}_API_KEY": key}
    done = stage.run(stage.installed / "python", PROGRAM, model, **named, LITELLM_LOCAL_MODEL_COST_MAP="True")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("model", ["openai/kimi-k3", "moonshot/kimi-k2.6"])
def test_a_streamed_tool_call_is_done_and_its_result_sent_back(stage: Stage, model: str) -> None:
    stage.upstream.always(ToolLoop([("write_file", {"path": "hello.txt", "text": "Hi 👋\n"})]))
    code, output, errors = run(stage, model, stage.key)
    assert (code, output.split()[-1:]) == (0, ["Done."]), errors
    written(stage, "hello.txt", "Hi 👋\n", turns=2)


def test_a_wrong_key_is_its_authentication_error(stage: Stage) -> None:
    code, _, errors = run(stage, "openai/kimi-k3", WRONG)
    assert code == 1
    assert "AuthenticationError" in errors
    assert "Invalid API key" in errors
    assert not stage.asked
