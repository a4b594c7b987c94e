"""The requests of the first free API, with several tokens of the caller in the header."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.attaching import Files
from support.inprocess import InProcess

TOKENS = ",".join(f"sk-own{'x' * 40}{number}" for number in range(3))

# The requests of the first free API's README, as they stand there without their comments.
SEED = {
    "model": "kimi",
    "messages": [{"role": "user", "content": "test"}],
    "use_search": True,
    "stream": False,
}
DOCUMENT = "https://mj101-1317487292.cos.ap-shanghai.myqcloud.com/ai/test.pdf"
PICTURE = "https://www.moonshot.cn/assets/logo/normal-dark.png"
SEED_DOCUMENT = {
    "model": "kimi",
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "file",
                    "file_url": {"url": DOCUMENT},
                },
                {"type": "text", "text": "What does the document say?"},
            ],
        }
    ],
    "use_search": False,
}
SEED_PICTURE = {
    "model": "kimi",
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "image_url",
                    "image_url": {"url": PICTURE},
                },
                {"type": "text", "text": "What does the image describe?"},
            ],
        }
    ],
    "use_search": False,
}


def answered(desk: InProcess, body: Any) -> Any:
    """What the addresses name is a double."""
    desk.running.gateway.files = Files(texts={DOCUMENT: "A text", PICTURE: "data:image/png;base64,eA=="})
    answer = desk.call("POST", "/v1/chat/completions", body, TOKENS)
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.parametrize("body", [SEED, SEED_DOCUMENT, SEED_PICTURE], ids=["test", "document", "picture"])
@pytest.mark.parametrize("conversation", [None, "none"])
def test_the_seeds_requests_with_several_tokens(body: Any, conversation: str | None) -> None:
    """In the shape of its answers."""
    with InProcess(passthrough=True, moonshot_api_key=()) as desk:
        told = answered(desk, body if conversation is None else body | {"conversation_id": conversation})
    assert (told["model"], told["object"]) == ("kimi", "chat.completion")
    assert isinstance(told["created"], int)
    form = r"chatcmpl-[0-9a-f-]{36}" if conversation is None else r"[0-9a-z]{20}"
    assert re.fullmatch(form, told["id"])
    (choice,) = told["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"]["role"] == "assistant"
    usage = told["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
