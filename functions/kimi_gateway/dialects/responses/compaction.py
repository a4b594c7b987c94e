"""`POST /v1/responses/compact`: a long conversation as its user's messages and one sealed summary, which
stands for the rest in later requests. The model writes the summary.

Shape: OpenAI's API reference, "Compact a response", and its SDK, 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.responses.answer import name_of, response_id, usage_of
from kimi_gateway.dialects.responses.kept import items_of, name_calls
from kimi_gateway.dialects.responses.output import Output
from kimi_gateway.dialects.responses.request import Translation, checked
from kimi_gateway.dialects.responses.seal import seal
from kimi_gateway.net import jsonio
from kimi_gateway.pivot.attachments import Results
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.dialect import Ask, Dialect, StreamWriter
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.request import ChatRequest

TASK = (
    "Write a summary of this conversation for an assistant that continues it without having seen it. The"
    " user's own messages will be kept, so do not repeat them. Say what was done and found, the decisions"
    " with their reasons, the state of the work with exact names, paths, commands and values, what failed,"
    " and what is still to be done. Write the summary only, and call no tool."
)
LONGEST = 32_768  # tokens of the answer, unless the client names a number; some models have a small default
_PREFIXES = {"compaction": "cmp", "function_call": "fc", "function_call_output": "fco"}
_LEFT_OUT = ("stream", "text", "include", "background")  # of the answer, which has a shape of its own


class Parsed(Protocol):
    """A request of Responses (dialect.py)."""

    @property
    def translation(self) -> Translation: ...

    @property
    def chat(self) -> ChatRequest: ...

    @property
    def stores(self) -> bool: ...


def read(responses: Dialect, raw: bytes) -> Ask:
    """A request for a compaction. Raises InvalidRequest."""
    body = checked(raw, {"input": []})
    given = body["input"]
    if not given and "previous_response_id" not in body:
        fail("input", "is required, or previous_response_id")
    said = [{"role": "user", "content": given}] if isinstance(given, str) else given
    asked = {name: value for name, value in body.items() if name not in _LEFT_OUT}
    asked = {"max_output_tokens": LONGEST} | asked | {"input": [*said, {"role": "user", "content": TASK}]}
    if asked.get("tools"):
        asked["tool_choice"] = "none"  # the tools stay, because the vendor's prefix cache has them
    ask = responses.read(jsonio.dumps(asked))
    complete = ask.complete

    def compacting(found: Mapping[str, bytes], resolved: Results) -> _Compacting:
        return _Compacting(complete(found, resolved), len(raw))  # type: ignore[arg-type]

    return replace(ask, complete=compacting)


@dataclass(frozen=True, slots=True)
class _Compacting:
    """Implements `ParsedRequest`. The answer is not kept: it goes into the next request."""

    parsed: Parsed
    size: int

    @property
    def chat(self) -> ChatRequest:
        return self.parsed.chat

    @property
    def stores(self) -> bool:
        return self.parsed.stores

    @property
    def continues(self) -> str:
        return ""

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        raise AssertionError("a compaction is not streamed")

    def answer(self, identity: Identity, narrowed: bool = False) -> CompactionAnswer:
        return CompactionAnswer(self.parsed, identity)

    def kept(self, beside: Sequence[str] = ()) -> dict[str, bytes]:
        return {}


class CompactionAnswer:
    def __init__(self, parsed: Parsed, identity: Identity) -> None:
        self._identity = identity
        self._name = name_of(identity)
        self._output = Output(self._name, parsed.translation.toolbox, sealed=False)
        self._called = parsed.translation.called
        self._messages = parsed.translation.messages[:-1]  # without the task

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._output.add(chunk)

    def end(self, usage: dict[str, Any]) -> bytes:
        """Without a whole summary the conversation comes back as it was, so that nothing of it is lost."""
        self._output.end()
        summary = "" if self._output.incomplete else self._summary()
        said = [item for each in self._messages for item in items_of(each)]
        name_calls(said, self._called)
        if summary:
            said = [item for item in said if item.get("role") == "user"]
            said.append({"type": "compaction", "encrypted_content": seal(summary)})
        output = [
            {"id": f"{_PREFIXES.get(item['type'], 'msg')}_{self._name}_{place}", **item}
            for place, item in enumerate(said)
        ]
        head = {"id": response_id(self._identity), "object": "response.compaction"}
        made = {"created_at": self._identity.created, "output": output, "usage": usage_of(usage)}
        return jsonio.dumps({**head, **made})

    def _summary(self) -> str:
        """The text of the answer, else its reasoning."""
        parts: dict[str, list[str]] = {"message": [], "reasoning": []}
        for item in self._output.items():
            for part in item.get("content") or item.get("summary") or ():
                parts.setdefault(item["type"], []).append(part.get("text") or "")
        return "\n\n".join(filter(None, parts["message"])) or "\n\n".join(parts["reasoning"])
