"""Content blocks of a client's message as parts of a pivot message. docs/contract.md, Messages."""

from __future__ import annotations

from typing import Any

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import fields, media
from kimi_gateway.pivot.fields import fail

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
_NO_PDF = "[A PDF document{title} was attached here. PDFs cannot be read here, so its content is missing.]"


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
    """A picture or document of a tool's result; its shape is still checked."""
    fields.mapping(value.get("source"), f"{where}.source")
    kind_of(value["source"], f"{where}.source")
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
            return [_image(value, f"{where}.source")]
        case "document":
            return _document(value, where, unread)
        case "search_result":
            return _search_result(value, where)
        case _:
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
        return {name: _readable(member) for name, member in value.items() if name not in _OPAQUE}
    return value


def _image(block: dict[str, Any], where: str) -> dict[str, Any]:
    source: Any = block.get("source")
    fields.mapping(source, where)
    match kind_of(source, where):
        case "base64":
            data, media_type = text(source, where, "data"), text(source, where, "media_type")
            url = f"data:{media_type};base64,{data}"
        case "url":
            url = text(source, where, "url")
        case "file":
            url = f"ms://{text(source, where, 'file_id')}"
        case _:
            fail(f"{where}.type", "must be one of base64, url, file")
    return media.image(url, where)


def _document(block: dict[str, Any], where: str, unread: list[str]) -> Parts:
    source: Any = block.get("source")
    title = block.get("title")
    fields.mapping(source, f"{where}.source")
    name = f" {title!r}" if isinstance(title, str) and title else ""
    match kind_of(source, f"{where}.source"):
        case "text":
            inner = _said(text(source, f"{where}.source", "data"))
        case "content":
            inner = parts(source.get("content"), f"{where}.source.content", unread)
        case "base64":
            unread.append("document")
            return _said(_NO_PDF.format(title=name))
        case "url":
            fail(f"{where}.source", "web addresses are not fetched yet; send the document's text")
        case "file":
            fail(f"{where}.source", "files are not read yet; send the document's text")
        case _:
            fail(f"{where}.source.type", "must be one of text, content, base64")
    context = block.get("context")
    head = f"Document{name}" + (f" ({context})" if isinstance(context, str) and context else "")
    if len(inner) == 1 and inner[0]["type"] == "text":
        return _said(f"{head}:\n{inner[0]['text']}")
    return [*_said(f"{head}:"), *inner]


def _search_result(block: dict[str, Any], where: str) -> Parts:
    fields.array(block.get("content"), f"{where}.content")
    found = [
        text(part, f"{where}.content.{at}")
        for at, part in enumerate(block["content"])
        if kind_of(part, f"{where}.content.{at}") == "text"
    ]
    head = f"Search result {text(block, where, 'title')} ({text(block, where, 'source')}):"
    return _said("\n".join([head, *found]))
