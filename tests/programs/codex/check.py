"""Codex, headless."""

from __future__ import annotations

from kimi_gateway.flow.search.tools import SEARCH
from programs.stage import Stage, shows_a_wrong_key, writes_a_file
from upstream import Kimi
from upstream.search import result


def codex(stage: Stage, key: str, more: str = "") -> tuple[int, str]:
    """One task, with a provider of its own in its configuration, and `more` in that."""
    (stage.home / ".codex").mkdir(exist_ok=True)
    (stage.home / ".codex/config.toml").write_text(f"""
model = "kimi-k3"
model_provider = "mine"
check_for_update_on_startup = false
{more}
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


def test_its_own_web_search_is_run_by_the_gateway_and_shown(stage: Stage) -> None:
    """Its search runs before its command. The model gets what was found, also with the command's result."""
    stage.upstream.web.results = [result(1), result(2)]
    looks = Kimi(text="I look. ", tools=[(SEARCH, {"query": "kimi news"})])
    shell = ("exec_command", {"cmd": "printf 'Hi\\n' > hello.txt"})
    stage.upstream.plan(looks, Kimi(text="", tools=[shell, (SEARCH, {"query": "more"})]))
    stage.upstream.always(Kimi(text="See [1]: https://example.com/1"))
    code, output = codex(stage, stage.key, 'web_search = "live"')
    assert code == 0, output
    assert "https://example.com/1" in output
    assert "kimi news" in output  # the search is an event of its own
    assert [request.body["text_query"] for request in stage.upstream.searches] == ["kimi news", "more"]
    tools = [tool["type"] for tool in stage.sent[0].body["tools"]]
    assert "web_search" in tools
    assert (stage.work / "hello.txt").read_text() == "Hi\n"
    assert stage.paid == 2
