"""What a program with an Anthropic SDK of 2024 does: `old_anthropic.py URL KEY PICTURE DOCUMENT`, in its own
environment. Picture and document are base64. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anthropic

ASK: Any = {
    "model": "kimi-k2",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
    "stop_sequences": ["END"],
}


# A picture and a document in base64; a document is newer than this SDK, which sends what it is given.
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": sys.argv[3]}}
DOCUMENT = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": sys.argv[4]},
}
ATTACHED: Any = ASK | {
    "messages": [
        {"role": "user", "content": [IMAGE, DOCUMENT, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [IMAGE]}]},
    ]
}


def main() -> None:
    client = anthropic.Anthropic(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=30)
    whole = client.messages.create(**ASK)
    with client.messages.stream(**ASK) as stream:
        texts = list(stream.text_stream)
        summed = stream.get_final_message()
    attached = client.messages.create(**ATTACHED)
    with client.messages.stream(**ATTACHED) as stream:
        attached_text = stream.get_final_text()
    errors = {}
    wrong = [{"role": "user", "content": [IMAGE | {"source": IMAGE["source"] | {"data": "%"}}]}]  # type: ignore[operator]
    for name, body in {
        "picture": {"messages": wrong},
        "bad": {"max_tokens": 0},
        "missing": {"model": "gpt-4"},
    }.items():
        try:
            client.messages.create(**(ASK | body))
        except anthropic.APIStatusError as exc:
            errors[name] = [type(exc).__name__, exc.status_code, exc.body]
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    body = ASK | {"extra_body": {"tools": tools}}
    with client.messages.stream(**body) as stream:
        searched = "".join(stream.text_stream), stream.get_final_message().model_dump()
    seen = {
        "searched": searched,
        "version": anthropic.__version__,
        "whole": whole.model_dump(),
        "summed": summed.model_dump(),
        "text": "".join(texts),
        "attached": [attached.content[0].text, attached_text],
        "errors": errors,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
