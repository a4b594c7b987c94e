"""The answer to a web search that is not possible, in the form in which Anthropic's servers report a failed
one."""

from __future__ import annotations

from typing import Any

from kimi_gateway.dialects.messages.answer import event, message_of, usage_of
from kimi_gateway.dialects.messages.request import Translation
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.chunks import Identity


def answer(translation: Translation, identity: Identity) -> bytes:
    """The answer, as events or as one body."""
    message = message_of(identity)
    id = "srvtoolu_" + message["id"].removeprefix("msg_")
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    query = {"query": translation.search}
    call: dict[str, Any] = {"type": "server_tool_use", "id": id, "name": "web_search", "input": query}
    result = {"type": "web_search_tool_result", "tool_use_id": id, "content": error}
    usage = usage_of({"prompt_tokens": token_estimate.of_messages(translation.chat.body["messages"])})
    usage["server_tool_use"] = {"web_search_requests": 0}
    if not translation.chat.stream:
        whole = {**message, "content": [call, result], "stop_reason": "end_turn", "usage": usage}
        return jsonio.dumps(whole)
    delta = {"type": "input_json_delta", "partial_json": jsonio.dumps(query).decode()}
    return b"".join(
        (
            event("message_start", message={**message, "usage": usage}),
            event("content_block_start", index=0, content_block={**call, "input": {}}),
            event("content_block_delta", index=0, delta=delta),
            event("content_block_stop", index=0),
            event("content_block_start", index=1, content_block=result),
            event("content_block_stop", index=1),
            event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage),
            event("message_stop"),
        )
    )
