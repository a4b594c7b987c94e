"""Kimi Code CLI, the vendor's agent for the terminal that took kimi-cli's place."""

from __future__ import annotations

import pytest

from programs.stage import WRONG, Stage, written
from upstream import ToolLoop


def kimi(stage: Stage, key: str, provider: str) -> tuple[int, str]:
    (stage.home / ".kimi-code").mkdir(exist_ok=True)
    (stage.home / ".kimi-code/config.toml").write_text("telemetry = false\n")
    done = stage.run(
        next(stage.installed.glob("node-linux-*/bin/node")),
        stage.installed / "@moonshot-ai/kimi-code/dist/main.mjs",
        "--prompt", "Write hello.txt",
        KIMI_MODEL_NAME="kimi-k3", KIMI_MODEL_API_KEY=key, KIMI_MODEL_BASE_URL=f"{stage.url}/v1",
        KIMI_MODEL_PROVIDER_TYPE=provider, KIMI_CODE_NO_AUTO_UPDATE="1",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("provider", ["kimi", "openai", "anthropic"])
def test_a_streamed_tool_call_writes_a_file_and_its_result_is_sent_back(stage: Stage, provider: str) -> None:
    arguments = {"path": str(stage.work / "hello.txt"), "content": "Hi 👋\n"}
    stage.upstream.always(ToolLoop([("Write", arguments)]))
    code, output = kimi(stage, stage.key, provider)
    assert code == 0, output
    assert "Done." in output
    written(stage, "hello.txt", "Hi 👋\n", turns=2)


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    code, output = kimi(stage, WRONG, "kimi")
    assert code != 0
    assert "Invalid API key" in output
    assert not stage.asked
