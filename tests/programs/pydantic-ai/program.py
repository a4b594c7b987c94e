"""A conversation of an agent with one tool on pydantic-ai: `program.py KIND URL KEY MODEL PROMPTS`.

Prints a line for each prompt: text, thoughts and the number of deltas of text.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelMessage,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
)
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.moonshotai import MoonshotAIProvider
from pydantic_ai.providers.openai import OpenAIProvider


def made(kind: str, url: str, key: str, name: str) -> tuple[Any, Any]:
    """Model and settings."""
    if kind == "anthropic":
        settings = AnthropicModelSettings(anthropic_thinking={"type": "adaptive"}, max_tokens=4_096)
        return AnthropicModel(name, provider=AnthropicProvider(base_url=url, api_key=key)), settings
    if kind == "responses":
        asks = OpenAIResponsesModelSettings(openai_reasoning_summary="auto", openai_store=False)
        return OpenAIResponsesModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key)), asks
    maker = {"chat": OpenAIProvider, "moonshotai": MoonshotAIProvider}[kind]
    return OpenAIChatModel(name, provider=maker(base_url=f"{url}/v1", api_key=key)), None


async def main(kind: str, url: str, key: str, name: str, prompts: int) -> None:
    model, settings = made(kind, url, key, name)
    agent = Agent(model, model_settings=settings, instructions="Use the tool.")

    @agent.tool_plain
    def write_file(n: int) -> str:
        """Write the file of this number."""
        Path(f"{n}.txt").write_text("Hi 👋\n")
        return "written"

    history: Sequence[ModelMessage] = []
    for n in range(prompts):
        deltas = 0
        async with agent.run_stream_events(f"Write file {n + 1}", message_history=history) as events:
            async for event in events:
                if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    deltas += 1
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    deltas += bool(event.part.content)
                result = getattr(event, "result", None) or None
        parts = [part for message in result.new_messages() for part in message.parts]
        thoughts = [part.content for part in parts if isinstance(part, ThinkingPart)]
        print(json.dumps({"text": result.output, "thoughts": thoughts, "deltas": deltas}))
        history = result.all_messages()


try:
    asyncio.run(main(*sys.argv[1:5], int(sys.argv[5])))
except Exception as error:
    sys.exit(f"{type(error).__mro__}: {error}")
