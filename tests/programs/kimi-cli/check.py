"""kimi-cli, the vendor's own agent for the terminal."""

from __future__ import annotations

import json

from programs.stage import Stage, shows_a_wrong_key, writes_a_file


def kimi(stage: Stage, key: str) -> tuple[int, str]:
    """One task, with the provider in its configuration as its manual has it."""
    provider = {"type": "kimi", "base_url": f"{stage.url}/v1", "api_key": key}
    model = {"provider": "mine", "model": "kimi-k3", "max_context_size": 1048576}
    config = {
        "default_model": "k3",
        "providers": {"mine": provider},
        "models": {"k3": model},
        "telemetry": False,
    }
    done = stage.run(
        stage.installed / "kimi", "--config", json.dumps(config), "--print", "--yolo",
        "--prompt", "Write hello.txt", KIMI_CLI_NO_AUTO_UPDATE="1",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_streamed_tool_call_writes_a_file_and_its_result_is_sent_back(stage: Stage) -> None:
    arguments = {"path": str(stage.work / "hello.txt"), "content": "Hi 👋\n"}
    writes_a_file(stage, kimi, "WriteFile", arguments)


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    shows_a_wrong_key(stage, kimi)
