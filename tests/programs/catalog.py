"""The programs that are tried here: what each is called, and the package whose version counts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Program:
    title: str
    package: str
    python: str = "3.11"  # the oldest that runs it


PROGRAMS = {
    "aider": Program("aider", "aider-chat"),
    "claude-code": Program("Claude Code", "@anthropic-ai/claude-code"),
    "codex": Program("Codex", "@openai/codex"),
    "kimi-cli": Program("kimi-cli", "kimi-cli", python="3.13"),  # 3.12.1 breaks it
    "kimi-code": Program("Kimi Code CLI", "@moonshot-ai/kimi-code"),
    "langchain": Program("LangChain", "langchain-openai"),
    "litellm": Program("LiteLLM", "litellm"),
    "openai-agents": Program("OpenAI Agents SDK", "openai-agents"),
    "opencode": Program("OpenCode", "opencode-linux-x64"),
    "pydantic-ai": Program("pydantic-ai", "pydantic-ai-slim"),
    "vercel-ai": Program("Vercel AI SDK", "ai"),
}


def version(name: str) -> str:
    """As the program's lock has it."""
    folder, package = HERE / name, PROGRAMS[name].package
    if (lock := folder / "package-lock.json").exists():
        return str(json.loads(lock.read_text())["packages"][f"node_modules/{package}"]["version"])
    found = re.search(rf"^{package}==(\S+)", (folder / "requirements.txt").read_text(), re.M)
    assert found, f"{package} is not in the lock"
    return found[1]
