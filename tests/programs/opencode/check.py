"""OpenCode, an agent for the terminal."""

from __future__ import annotations

import json

from programs.stage import Stage, shows_a_wrong_key, writes_a_file


def opencode(stage: Stage, key: str) -> tuple[int, str]:
    """One task, with a provider of its own in its configuration."""
    options = {"baseURL": f"{stage.url}/v1", "apiKey": "{env:KIMI_GATEWAY_KEY}"}
    model = {"limit": {"context": 1048576, "output": 131072}, "reasoning": True, "tool_call": True}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"kimi-k3": model}}
    config = {
        "provider": {"mine": provider},
        "model": "mine/kimi-k3",
        "autoupdate": False,
        "share": "disabled",
    }
    (stage.work / "opencode.json").write_text(json.dumps(config))
    done = stage.run(
        stage.installed / "opencode-linux-x64/bin/opencode",
        "run", "Write hello.txt", KIMI_GATEWAY_KEY=key,
        OPENCODE_DISABLE_MODELS_FETCH="1", OPENCODE_DISABLE_LSP_DOWNLOAD="1",
        OPENCODE_DISABLE_DEFAULT_PLUGINS="1",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_streamed_tool_call_writes_a_file_and_its_result_is_sent_back(stage: Stage) -> None:
    arguments = {"filePath": str(stage.work / "hello.txt"), "content": "Hi 👋\n"}
    writes_a_file(stage, opencode, "write", arguments)


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    shows_a_wrong_key(stage, opencode)
