"""A loop with one tool on LangChain: `program.py MAKER MODEL`, base and key from the environment."""

import sys
from pathlib import Path

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def write_file(path: str, text: str) -> str:
    """Write a file."""
    Path(path).write_text(text)
    return "written"


maker = {"openai": ChatOpenAI, "anthropic": ChatAnthropic}[sys.argv[1]]
model = maker(model=sys.argv[2], max_retries=0).bind_tools([write_file])
messages = [HumanMessage("Write hello.txt")]
while True:
    try:
        chunks = list(model.stream(messages))
    except Exception as error:
        sys.exit(f"{type(error).__mro__}: {error}")
    message = sum(chunks[1:], chunks[0])
    messages.append(message)
    if not message.tool_calls:
        break
    messages += [write_file.invoke(call) for call in message.tool_calls]
print(message.text)
