"""A loop with one tool on LiteLLM's SDK: `program.py MODEL`, base and key from the environment."""

import json
import sys
from pathlib import Path

import litellm

PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "write_file", "parameters": PARAMETERS}}

messages: list[object] = [{"role": "user", "content": "Write hello.txt"}]
while True:
    try:
        chunks = list(litellm.completion(model=sys.argv[1], messages=messages, tools=[TOOL], stream=True))
    except litellm.exceptions.AuthenticationError as error:
        sys.exit(f"AuthenticationError: {error}")
    message = litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message
    messages.append(message.model_dump())
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        arguments = json.loads(call.function.arguments)
        Path(arguments["path"]).write_text(arguments["text"])
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "written"})
print(message.content)
