"""Anthropic's Messages."""

from __future__ import annotations

from kimi_gateway.edge.home.schemas.notation import (
    ANY,
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Schema,
    array,
    either,
    maybe,
    one,
    record,
    ref,
)

_BLOCKS = either(TEXT, array(ref("MessageBlock")))
_USAGE = record(
    {"input_tokens": maybe(WHOLE), "output_tokens": WHOLE},
    cache_read_input_tokens=maybe(WHOLE),
    cache_creation_input_tokens=maybe(WHOLE),
    cache_creation=maybe(OBJECT),
    output_tokens_details=maybe(OBJECT),
    server_tool_use=maybe(OBJECT),
    service_tier=maybe(TEXT),
    inference_geo=maybe(TEXT),
)
_REASON = one(
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal",
    "model_context_window_exceeded",
)  # fmt: skip
_ENDING = record({}, stop_reason=maybe(_REASON), stop_sequence=maybe(TEXT), container=ANY, stop_details=ANY)
_EVENTS = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
    "message_stop", "ping", "error",
)  # fmt: skip
_BODY: dict[str, Schema] = {
    "system": maybe(_BLOCKS),
    "tools": maybe(array(OBJECT)),
    "tool_choice": maybe(OBJECT),
    "thinking": maybe(OBJECT),
    "output_config": maybe(OBJECT),
    "cache_control": maybe(OBJECT),
    "metadata": maybe(OBJECT),
}

SCHEMAS: dict[str, Schema] = {
    "MessagesRequest": record(
        {"model": TEXT, "messages": array(ref("Message")), "max_tokens": WHOLE},
        **_BODY,
        stream=maybe(FLAG),
        stop_sequences=maybe(array(TEXT)),
        temperature=maybe(NUMBER),
        top_p=maybe(NUMBER),
        top_k=maybe(WHOLE),
        service_tier=maybe(TEXT),
    ),
    "MessagesCountRequest": record({"model": TEXT, "messages": array(ref("Message"))}, **_BODY),
    "MessagesCount": record({"input_tokens": WHOLE}),
    "Message": record({"role": one("user", "assistant", "system"), "content": _BLOCKS}),
    "MessageBlock": record(
        {"type": TEXT},
        text=TEXT,
        source=OBJECT,
        title=maybe(TEXT),
        thinking=TEXT,
        signature=TEXT,
        data=TEXT,
        id=TEXT,
        name=TEXT,
        input=OBJECT,
        tool_use_id=TEXT,
        is_error=maybe(FLAG),
        content=ANY,
        cache_control=maybe(OBJECT),
        citations=ANY,
        caller=maybe(OBJECT),
    ),
    "MessagesAnswer": record(
        {
            "id": TEXT,
            "type": one("message"),
            "role": one("assistant"),
            "model": TEXT,
            "content": array(ref("MessageBlock")),
            "stop_reason": maybe(_REASON),
            "stop_sequence": maybe(TEXT),
            "usage": _USAGE,
        },
        container=ANY,
        stop_details=ANY,
    ),
    "MessagesEvent": record(
        {"type": one(*_EVENTS)},
        message=ref("MessagesAnswer"),
        index=WHOLE,
        content_block=ref("MessageBlock"),
        delta=either(
            _ENDING,
            record(
                {"type": TEXT}, text=TEXT, partial_json=TEXT, thinking=TEXT, signature=TEXT, citation=OBJECT
            ),
        ),
        usage=_USAGE,
        error=record({"type": TEXT, "message": TEXT}),
        request_id=TEXT,
    ),
}
