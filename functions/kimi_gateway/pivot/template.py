"""Templates for chunks. Chunks of a stream mostly differ in one text. If the bytes around it are the same,
only the text is extracted and the chunk is not parsed again."""

from __future__ import annotations

import re
from typing import Any

from kimi_gateway.net import jsonio, sse

TEXTS = ("content", "reasoning_content", "refusal")
_NOT_PLAIN = re.compile(
    rb'["\\\x00-\x1f]'
)  # bytes that end a JSON string, begin an escape, or are illegal in a string
_PLAIN = b"\n" + bytes(byte for byte in range(32, 256) if byte not in b'"\\')  # with the ends of lines
_STRINGS = re.compile(  # JSON strings without their quotes, a line each
    rb'[^"\\\x00-\x1f]*+(?:(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})|\n)[^"\\\x00-\x1f]*+)*+'
)
_FLAT = frozenset((str, int, float, bool, type(None)))
_PROBE = "probe"
LONGEST = 64 * 1024  # bytes of a chunk; searching a longer text takes more time than parsing it


class ChunkTemplate:
    """A chunk with one choice and one text in its delta: the bytes around that text, and the body."""

    __slots__ = ("_body", "_choice", "_length", "after", "before", "index", "name")

    def __init__(self, before: bytes, after: bytes, body: dict[str, Any], name: str) -> None:
        self.before, self.after = before, after
        self._length = len(before) + len(after)
        self._body, self._choice, self.name = body, dict(body["choices"][0]), name
        self.index: int = self._choice.get("index", 0)

    def read(self, data: bytes) -> tuple[dict[str, Any], str] | None:
        """The body and the text of a matching chunk; None if it must be parsed."""
        before, after = self.before, self.after  # as `encloses`, without its call
        if not self._length < len(data) <= LONGEST or not (data.startswith(before) and data.endswith(after)):
            return None
        middle = data[len(before) : len(data) - len(after)]
        if _NOT_PLAIN.search(middle):
            return None
        try:
            text = middle.decode()
        except UnicodeDecodeError:
            return None
        return self.body_with(text), text

    def encloses(self, data: bytes, name: bytes = b"") -> bool:
        """Whether an event has the bytes around the text."""
        enough = not name and self._length < len(data) <= LONGEST
        return enough and data.startswith(self.before) and data.endswith(self.after)

    def strings_of(self, events: list[sse.Event]) -> list[bytes]:
        """The strings in the place of the text, up to the first event that does not match."""
        before, after = self.before, self.after
        start, end = len(before), len(after)
        joined = b"".join([data for data, _ in events])
        if len(joined) <= LONGEST:
            # An event with a string left is as long as the string with the bytes around it. So if all events
            # together are all strings with these bytes around each, every single one is.
            strings = [data[start:-end] for data, name in events if not name]
            whole = len(strings) == len(events) and all(strings)
            if whole and joined == b"".join((before, (after + before).join(strings), after)):
                return strings
        strings = []
        for event in events:
            if not self.encloses(*event):
                break
            strings.append(event[0][start:-end])
        return strings

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the body's members, in their order."""
        return tuple(self._body)

    def body_with(self, text: str) -> dict[str, Any]:
        return {**self._body, "choices": [{**self._choice, "delta": {self.name: text}}]}


def texts_of(strings: list[bytes]) -> list[str] | None:
    """The texts of JSON strings, given without their quotes. None if one is not a JSON string."""
    lines = b"\n".join(strings)
    try:
        if not lines.translate(None, _PLAIN):
            texts = lines.decode().split("\n")
        elif _STRINGS.fullmatch(lines):
            texts = jsonio.loads(b'["%b"]' % lines.replace(b"\n", b'","'))
        else:
            return None
    except ValueError:  # not UTF-8
        return None
    return texts if len(texts) == len(strings) else None  # no string has a line end in it


def learn(data: bytes, body: dict[str, Any]) -> ChunkTemplate | None:
    """A template from a parsed chunk, None if it has a different form. It is verified by parsing it with
    another text."""
    choices = body["choices"]
    delta = choices[0].get("delta")
    if len(choices) > 1 or not delta or len(delta) > 1:
        return None
    ((name, text),) = delta.items()
    others = [value for member, value in choices[0].items() if member != "delta"]
    if name not in TEXTS or not text or not all(type(value) in _FLAT for value in others):
        return None
    literal = jsonio.dumps(text)[1:-1]
    before, mark, rest = data.partition(b'"%b":"' % name.encode())
    if not mark:
        before, mark, rest = data.partition(b'"%b": "' % name.encode())
    if not rest.startswith(literal):
        return None
    template = ChunkTemplate(before + mark, rest[len(literal) :], body, name)
    tried = template.before + _PROBE.encode() + template.after
    try:
        same = jsonio.loads(tried)
    except ValueError:
        return None
    same.pop("usage", None)
    return template if same == template.body_with(_PROBE) else None
