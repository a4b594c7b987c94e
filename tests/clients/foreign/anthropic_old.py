"""An old `anthropic` behind JSON lines, in an environment of its own (requirements/old.in)."""

from __future__ import annotations

from typing import Any

import anthropic
from lines import Seen, outcomes


def call(order: dict[str, Any], seen: Seen) -> Any:
    auth = {"auth_token": order["token"]} if order.get("token") else {"api_key": order["key"]}
    client = anthropic.Anthropic(base_url=order["base"], **auth, max_retries=0, timeout=30)
    body = order.get("body", {})
    match order["do"]:
        case "whole":
            return client.messages.create(**body).model_dump(exclude_unset=True)
        case "chunks":
            for event in client.messages.create(**body, stream=True):
                seen.append(event.model_dump(exclude_unset=True))
            return seen
        case "accumulated":
            with client.messages.stream(**body) as stream:
                return stream.get_final_message().model_dump(exclude_unset=True)
        case "count":
            return client.messages.count_tokens(**body).model_dump()


outcomes(call)
