"""An old `openai` behind JSON lines, in an environment of its own (requirements/old-openai.in)."""

from __future__ import annotations

from typing import Any

import openai
from lines import Seen, outcomes


def call(order: dict[str, Any], seen: Seen) -> Any:
    client = openai.OpenAI(base_url=order["base"], api_key=order["key"], max_retries=0, timeout=30)
    body = order.get("body", {})
    match order["do"]:
        case "whole":
            return client.chat.completions.create(**body).model_dump(exclude_unset=True)
        case "chunks":
            for chunk in client.chat.completions.create(**body, stream=True):
                seen.append(chunk.model_dump(exclude_unset=True))
            return seen
        case "accumulated":
            with client.beta.chat.completions.stream(**body) as stream:
                return stream.get_final_completion().model_dump(exclude_unset=True)
        case "models":
            return [model.model_dump() for model in client.models.list()]
        case "files":
            made = client.files.create(file=("notes.txt", b"Hello Kimi"), **body)
            waited = client.files.wait_for_processing(made.id, max_wait_seconds=1)
            shown = client.files.retrieve(made.id)
            listed = list(client.files.list(extra_query={"limit": 1}))
            text = client.files.content(made.id).text
            gone = client.files.delete(made.id)
            told = {"made": made, "shown": shown, "waited": waited, "gone": gone}
            return {
                **{name: value.model_dump() for name, value in told.items()},
                "listed": [file.model_dump() for file in listed],
                "text": text,
            }
        case "batches":
            file = client.files.create(file=("in.jsonl", body["lines"].encode()), purpose="batch")
            made = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            shown = client.batches.retrieve(made.id)
            listed = list(client.batches.list(limit=1))
            cancelled = client.batches.cancel(made.id)
            told = {"made": made, "shown": shown, "cancelled": cancelled}
            return {
                **{name: value.model_dump() for name, value in told.items()},
                "listed": [batch.model_dump() for batch in listed],
            }


outcomes(call)
