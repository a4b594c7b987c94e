"""A conversation of an agent with one tool on the OpenAI Agents SDK: `program.py KIND URL KEY MODEL PROMPTS`.

Prints a line for each prompt: text, thoughts and the number of deltas of text.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning


@function_tool
def write_file(n: int) -> str:
    """Write the file of this number."""
    Path(f"{n}.txt").write_text("Hi 👋\n")
    return "written"


async def main(kind: str, url: str, key: str, name: str, prompts: int) -> None:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    maker: Any = {"chat": OpenAIChatCompletionsModel}.get(kind, OpenAIResponsesModel)
    settings = ModelSettings(reasoning=Reasoning(effort="high", summary="auto"))
    if kind == "sealed":
        settings.store, settings.response_include = False, ["reasoning.encrypted_content"]
    agent = Agent(
        name="writer",
        instructions="Use the tool.",
        model=maker(model=name, openai_client=client),
        model_settings=settings,
        tools=[write_file],
    )
    history: list[Any] = []
    earlier = None
    for n in range(prompts):
        deltas, thoughts = 0, []
        asked = [*history, {"role": "user", "content": f"Write file {n + 1}"}]
        streamed = Runner.run_streamed(agent, asked, previous_response_id=earlier)
        async for event in streamed.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                deltas += 1
            if event.type == "run_item_stream_event" and event.item.type == "reasoning_item":
                raw = event.item.raw_item
                thoughts.append("".join(part.text for part in (raw.content or raw.summary)))
        print(json.dumps({"text": streamed.final_output, "thoughts": thoughts, "deltas": deltas}))
        if kind == "previous":
            earlier = streamed.last_response_id
        else:
            history = streamed.to_input_list()


set_tracing_disabled(True)
try:
    asyncio.run(main(*sys.argv[1:5], int(sys.argv[5])))
except Exception as error:
    sys.exit(f"{type(error).__mro__}: {error}")
