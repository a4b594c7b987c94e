"""Codex, headless."""

from __future__ import annotations

from programs.stage import Stage, shows_a_wrong_key, writes_a_file


def codex(stage: Stage, key: str) -> tuple[int, str]:
    """One task, with a provider of its own in its configuration."""
    (stage.home / ".codex").mkdir(exist_ok=True)
    (stage.home / ".codex/config.toml").write_text(f"""
model = "kimi-k3"
model_provider = "mine"
check_for_update_on_startup = false
[analytics]
enabled = false
[features]
plugins = false
[model_providers.mine]
name = "Kimi Gateway"
base_url = "{stage.url}/v1"
env_key = "KIMI_GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
""")
    done = stage.run(
        next((stage.installed / "@openai").glob("codex-linux-*/vendor/*/bin/codex")),
        "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "Write hello.txt",
        KIMI_GATEWAY_KEY=key,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_streamed_tool_call_writes_a_file_and_its_result_is_sent_back(stage: Stage) -> None:
    writes_a_file(stage, codex, "exec_command", {"cmd": "printf 'Hi 👋\\n' > hello.txt"})


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    assert shows_a_wrong_key(stage, codex) != 0
