"""Chat Completions: OpenAI's form with the members of Kimi's platform."""

from __future__ import annotations

from kimi_gateway.edge.home.schemas.notation import (
    ANY,
    FLAG,
    NUMBER,
    OBJECT,
    SECONDS,
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

_URL = either(TEXT, record({"url": TEXT}))
_CALL = record(
    {"id": TEXT, "type": one("function"), "function": record({"name": TEXT, "arguments": TEXT})}, index=WHOLE
)
_CALL_PIECE = record(
    {"index": WHOLE}, id=TEXT, type=one("function"), function=record({}, name=TEXT, arguments=TEXT)
)
_CITATION = record(
    {
        "type": one("url_citation"),
        "url_citation": record(
            {"url": TEXT, "title": TEXT}, start_index=WHOLE, end_index=WHOLE, content=TEXT
        ),
    }
)
_USAGE = record(
    {"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE},
    cached_tokens=WHOLE,
    prompt_tokens_details=OBJECT,
    completion_tokens_details=OBJECT,
)
_SAID = {
    "content": maybe(TEXT),
    "reasoning_content": maybe(TEXT),
    "refusal": maybe(TEXT),
    "annotations": array(_CITATION),
}
_REASON = one("stop", "length", "tool_calls", "content_filter")
_CHUNK_CHOICE = record(
    {"index": WHOLE, "delta": record({}, role=one("assistant"), **_SAID, tool_calls=array(_CALL_PIECE))},
    finish_reason=maybe(_REASON),
    logprobs=ANY,
    usage=_USAGE,
)
_CHOICE = record(
    {
        "index": WHOLE,
        "message": record(
            {"role": one("assistant"), "content": maybe(TEXT)},
            **{name: of for name, of in _SAID.items() if name != "content"},
            tool_calls=array(_CALL),
        ),
        "finish_reason": maybe(_REASON),
    },
    logprobs=ANY,
)
_HEAD = {"id": TEXT, "created": SECONDS, "model": TEXT}
_TOOL = either(
    record(
        {
            "type": one("function"),
            "function": record(
                {"name": TEXT}, description=maybe(TEXT), parameters=maybe(OBJECT), strict=maybe(FLAG)
            ),
        }
    ),
    record({"type": TEXT}),
)

SCHEMAS: dict[str, Schema] = {
    "ChatRequest": record(
        {"model": TEXT, "messages": array(ref("ChatMessage"))},
        stream=maybe(FLAG),
        stream_options=maybe(record({}, include_usage=FLAG)),
        max_tokens=maybe(WHOLE),
        max_completion_tokens=maybe(WHOLE),
        temperature=maybe(NUMBER),
        top_p=maybe(NUMBER),
        n=maybe(WHOLE),
        stop=maybe(either(TEXT, array(TEXT))),
        presence_penalty=maybe(NUMBER),
        frequency_penalty=maybe(NUMBER),
        tools=maybe(array(_TOOL)),
        tool_choice=maybe(either(TEXT, OBJECT)),
        response_format=maybe(OBJECT),
        reasoning_effort=maybe(TEXT),
        thinking=maybe(OBJECT),
        use_search=maybe(FLAG),
        web_search_options=maybe(OBJECT),
        conversation_id=maybe(TEXT),
        store=maybe(FLAG),
        metadata=maybe(OBJECT),
        prompt_cache_key=maybe(TEXT),
        user=maybe(TEXT),
    ),
    "ChatMessage": record(
        {"role": one("system", "developer", "user", "assistant", "tool", "function")},
        content=maybe(either(TEXT, array(either(TEXT, ref("ChatPart"))))),
        reasoning_content=maybe(TEXT),
        name=maybe(TEXT),
        tool_calls=maybe(array(OBJECT)),
        tool_call_id=maybe(TEXT),
    ),
    "ChatPart": record(
        {"type": TEXT},
        text=TEXT,
        image_url=_URL,
        video_url=_URL,
        file=record({}, file_id=TEXT, file_data=TEXT, file_url=_URL, filename=TEXT),
        file_url=_URL,
    ),
    "ChatAnswer": record(
        {"object": one("chat.completion"), **_HEAD, "choices": array(_CHOICE), "usage": _USAGE},
        system_fingerprint=maybe(TEXT),
        service_tier=maybe(TEXT),
    ),
    "ChatEvent": either(ref("ChatChunk"), ref("Error")),
    "ChatChunk": record(
        {"object": one("chat.completion.chunk"), **_HEAD, "choices": array(_CHUNK_CHOICE)},
        system_fingerprint=maybe(TEXT),
        service_tier=maybe(TEXT),
        usage=maybe(_USAGE),
    ),
}
