"""Content blocks of a client's message as parts of a pivot message. docs/contract.md, Messages."""

from __future__ import annotations

from typing import Any

from kimi_gateway.dialects.responses.seal import unseal
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import documents, fields, media
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.placement import Slot, head

Parts = list[dict[str, Any]]

# Claude Code drops an answer whose thinking has no signature (2026-05), and others do not replay it. If the
# upstream gave none, it is this constant, so it never changes a prefix; nobody checks it.
SIGNATURE = "a2ltaS1nYXRld2F5"

# Blocks that only Anthropic's servers make or read. In a history that began there the model gets them as
# text, so that it knows the results (anthropic SDK 2.13, 2026-11).
_FOREIGN = frozenset(
    (
        "server_tool_use",
        "mcp_tool_use",
        "mcp_tool_result",
        "mcp_tool_listing",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "advisor_tool_result",
        "tool_reference",
        "tool_addition",
        "tool_removal",
        "container_upload",
        "browser_state",
        "fallback",
    )
)
# Members of such a block that no model can read.
_OPAQUE = frozenset(("cache_control", "caller", "signature", "encrypted_content", "encrypted_index"))
_NOUNS = {"image": "picture", "document": "document"}
# The member of a source with its content, by the source's type. One source has one of them.
_SOURCES = {"base64": "data", "text": "data", "url": "url", "file": "file_id", "content": "content"}
_MEMBERS = tuple(dict.fromkeys(_SOURCES.values()))


def kind_of(block: Any, where: str) -> str:
    fields.mapping(block, where)
    kind = block.get("type")
    fields.string(kind, f"{where}.type")
    return str(kind)


def text(block: dict[str, Any], where: str, name: str = "text") -> str:
    fields.string(block.get(name), f"{where}.{name}")
    return str(block[name])


def parts(content: Any, where: str, unread: list[str], result: bool = False) -> Parts:
    """Parts of a string or of blocks; an empty text has no part. `unread` collects the kinds of blocks whose
    content could not be passed on. In a tool's `result`, a sentence replaces content that cannot be sent.
    Raises InvalidRequest for an unknown kind."""
    if type(content) is str:
        return _said(content)
    fields.array(content, where)
    made: Parts = []
    for index, value in enumerate(content):
        here = f"{where}.{index}"
        if result and kind_of(value, here) in _NOUNS:
            made += _told(value, here, unread)
        else:
            made += block(value, here, unread)
    return made


def _told(value: dict[str, Any], where: str, unread: list[str]) -> Parts:
    """A picture or a document of a tool's result; its shape is still checked."""
    _source(value, where, tuple(_SOURCES))
    try:
        return block(value, where, unread)
    except InvalidRequest as error:
        return [media.told(_NOUNS[value["type"]], error)]


def plain(made: Parts) -> str | Parts:
    """A string if there is one text, else the parts."""
    return made[0]["text"] if len(made) == 1 and made[0]["type"] == "text" else made


def _said(words: str) -> Parts:
    return [{"type": "text", "text": words}] if words else []


def block(value: Any, where: str, unread: list[str]) -> Parts:
    match kind_of(value, where):
        case "text":
            return _said(text(value, where))
        case "image":
            if value.get("transformations"):
                unread.append("transformations")
            return [_image(value, where)]
        case "document":
            return _document(value, where, unread)
        case "search_result":
            return _search_result(value, where)
        case "container_upload":
            unread.append("container_upload")
    return _said(foreign(value, where))


def foreign(block: dict[str, Any], where: str) -> str:
    """A block of Anthropic's servers as text. Raises InvalidRequest for other kinds."""
    kind = block["type"]
    if kind == "compaction":
        return str(block.get("content") or "")
    if kind not in _FOREIGN:
        fail(f"{where}.type", f"{kind[:60]!r} is not an allowed content block here")
    told = {name: value for name, value in _readable(block).items() if name != "type"}
    return f"[{kind}: {jsonio.dumps(told).decode()}]"


def _readable(value: Any) -> Any:
    if isinstance(value, list):
        return [_readable(member) for member in value]
    if isinstance(value, dict):
        told = {name: _readable(member) for name, member in value.items() if name not in _OPAQUE}
        if value.get("type") == "web_search_result" and (found := unseal(value.get("encrypted_content"))):
            told["content"] = found  # the gateway's own: what the model read of the page
        return told
    return value


def _source(block: dict[str, Any], where: str, kinds: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The type of a source, and the source. Raises InvalidRequest if it is not exactly one source."""
    source: Any = block.get("source")
    fields.mapping(source, f"{where}.source")
    kind = kind_of(source, f"{where}.source")
    fields.one_of(*kinds)(kind, f"{where}.source.type")
    documents.only_source(source, _MEMBERS, f"{where}.source")
    if kind != "content":
        text(source, f"{where}.source", _SOURCES[kind])
    return kind, source


def _image(block: dict[str, Any], where: str) -> dict[str, Any]:
    kind, source = _source(block, where, ("base64", "url", "file"))
    here = f"{where}.source"
    match kind:
        case "base64":
            url = f"data:{text(source, here, 'media_type')};base64,{source['data']}"
        case "url":
            url = source["url"]
        case _:
            return documents.by_id(source["file_id"], f"{here}.file_id", None, "image")
    return media.part("image", url, here)


def _document(block: dict[str, Any], where: str, unread: list[str]) -> Parts:
    title, context = _words(block, "title"), _words(block, "context")
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled"):
        unread.append("citations")
    kind, source = _source(block, where, tuple(_SOURCES))
    here = f"{where}.source.{_SOURCES[kind]}"
    match kind:
        case "text":
            inner = _said(source["data"])
        case "content":
            inner = parts(source["content"], here, unread)
        case "base64":
            media_type = _words(source, "media_type") or "application/pdf"
            made = documents.by_bytes(source["data"], media_type, here, None, "document")
            if isinstance(made, Slot):
                made.title, made.context = title, context
                return [made]
            inner = [made]
        case "url":
            return [documents.by_address(source["url"], here, None, "document", title=title, context=context)]
        case _:
            return [documents.by_id(source["file_id"], here, None, "document", title=title, context=context)]
    line = head(title, context)
    if len(inner) == 1 and inner[0]["type"] == "text":
        return _said(f"{line}:\n{inner[0]['text']}")
    return [*_said(f"{line}:"), *inner]


def _words(value: dict[str, Any], name: str) -> str | None:
    """An optional text; None for other types."""
    words = value.get(name)
    return words if isinstance(words, str) and words else None


def _search_result(block: dict[str, Any], where: str) -> Parts:
    fields.array(block.get("content"), f"{where}.content")
    found = [
        text(part, f"{where}.content.{at}")
        for at, part in enumerate(block["content"])
        if kind_of(part, f"{where}.content.{at}") == "text"
    ]
    head = f"Search result {text(block, where, 'title')} ({text(block, where, 'source')}):"
    return _said("\n".join([head, *found]))
