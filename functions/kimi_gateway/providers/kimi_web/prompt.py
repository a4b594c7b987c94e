"""A chat as the web service takes it: one message of one user, with files beside it. Pure.

The service has no roles, so a conversation becomes one text, as the first free API did it: `role:text` for
each message, and a line before the last one that directs the model to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.catalog.vendor import Vendor
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.compatible.prepare import style_in_words, think
from kimi_gateway.providers.kimi_web import frames
from kimi_gateway.providers.kimi_web.sources import Sources
from kimi_gateway.providers.provider import Call, Tap

Json = dict[str, Any]
# The lines of the first free API: look at the newest message; at the newest files and message.
NEWEST, NEWEST_FILES = "关注用户最新的消息", "关注用户最新发送文件和消息"
MOST_MEDIA = 20  # of one request, each of which is uploaded
SEARCH = {"type": "TOOL_TYPE_SEARCH", "search": {}}
# An address with a dotted host, up to a blank, a quote or a mark of another language.
_ADDRESS = re.compile(r"https?://[\w-]+(?:\.[\w-]+)+[^\s<>\"'`，。；：、！？（）【】《》]*", re.ASCII)
_TRAILING = ".,;:!?)]}"
_LEVELS = {"low": "LOW", "medium": "MEDIUM", "high": "HIGH", "max": "MAX"}


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture or document that goes along. `url` is a data URL."""

    url: str = field(repr=False)
    name: str
    picture: bool


@dataclass(frozen=True, slots=True)
class WebCall(Call):
    """`request` lacks its blocks. `content` is the text of the message, by which its chat can be found
    again."""

    request: Json = field(default_factory=dict, repr=False)
    content: str = field(default="", repr=False)
    media: tuple[Medium, ...] = ()

    def framed(self, files: Sequence[str]) -> bytes:
        """The bytes of the request with uploaded files (ids)."""
        blocks: list[Json] = [{"message_id": "", "text": {"content": self.content}}]
        blocks += [{"file": {"id": id, "status": "PROCESS_STATUS_SUCCESS"}} for id in files]
        message = {**self.request["message"], "blocks": blocks}
        return frames.encode(jsonio.dumps({**self.request, "message": message}))


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """See `Prepared`. `searches`: the model may search the web."""

    model: Model
    body: Json = field(repr=False)
    fields: Json = field(repr=False)
    ignored: tuple[str, ...]
    searches: bool
    missing: None = None

    def call(self) -> WebCall:
        messages, options = self.body["messages"], self.fields.get("options", {})
        scenario = self.fields.get("scenario", "")
        request = {
            **{name: value for name, value in self.fields.items() if name != "options"},
            "tools": [SEARCH] if self.searches else [],
            "project_id": "",
            "message": {"role": "user", "scenario": scenario, "is_goal": False},
            "options": _options(options, self.body, self.searches),
        }
        media = tuple(medium for message in messages for medium in media_of(message))
        content = merged(messages)
        return WebCall(self.model, self.body, b"", request=request, content=content, media=media)

    def taps(self) -> list[Tap]:
        return [Sources(self.searches)]


def prepare(chat: ChatRequest, model: Model, vendor: Vendor) -> PreparedChat:
    """See `Provider.prepare`."""
    _check_media(chat.body["messages"])
    known = vendor.model(model.upstream)
    fields = dict(known.fields) if known is not None else {}
    body = dict(chat.body)
    dropped = [name for name in body if name in vendor.drop]
    for name in dropped:
        del body[name]
    dropped += think(body, vendor.thinking, (known and known.efforts) or ())
    if style_in_words(body, vendor):
        dropped.append("response_format")
    names = dict.fromkeys(chat.names.get(name, name) for name in dropped)
    return PreparedChat(model, body, fields, tuple(names), chat.search is not None)


def _check_media(messages: list[Json]) -> None:
    """Raises InvalidRequest."""
    kinds = [part.get("type") for message in messages for part in _parts(message)]
    if "video_url" in kinds:
        raise InvalidRequest("messages: the web service of kimi.com takes no videos here", param="messages")
    if sum(kind in ("image_url", "file_url") for kind in kinds) > MOST_MEDIA:
        raise InvalidRequest(
            f"messages: may have at most {MOST_MEDIA} pictures and documents", param="messages"
        )


def _parts(message: Json) -> list[Json]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _options(given: Json, body: Json, searches: bool) -> Json:
    """The row's options, with the thinking that the client asks for."""
    options = {**given, "enable_plugin": searches}
    thinking, effort = body.get("thinking"), body.get("reasoning_effort")
    if thinking is not None:
        options["thinking"] = thinking["type"] == "enabled"
    level = _LEVELS.get(str(effort), "HIGH") if options.get("thinking") else "NONE"
    if effort is not None or not options.get("thinking"):
        options["reasoning_effort"] = f"REASONING_EFFORT_{level}"
    return options


def merged(messages: list[Json]) -> str:
    """The conversation as one text. A single message stands without its role."""
    if len(messages) == 1:
        return "".join(f"{text}\n" for text in _texts(messages[0]))
    line = NEWEST_FILES if any(media_of(messages[-1])) else NEWEST
    told = [*messages[:-1], {"role": "system", "content": line}, messages[-1]]
    return "".join(f"{message['role']}:{text}\n" for message in told if (text := _joined(message)))


def _joined(message: Json) -> str:
    return "\n".join(_texts(message))


def _texts(message: Json) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield with_addresses(content) if message["role"] == "user" else content
        return
    for part in content or ():
        if part.get("type") == "text":
            yield part["text"]


def with_addresses(text: str) -> str:
    """Addresses are marked, so that the service reads the pages."""

    def marked(found: re.Match[str]) -> str:
        url = found[0].rstrip(_TRAILING)
        return f'<url id="" type="url" status="" title="" wc="">{url}</url>{found[0][len(url) :]}'

    return _ADDRESS.sub(marked, text)


def media_of(message: Json) -> Iterator[Medium]:
    for part in _parts(message):
        kind = part.get("type")
        if kind in ("image_url", "file_url"):
            value = part[kind]
            url, name = (value, "") if isinstance(value, str) else (value["url"], value.get("name") or "")
            yield Medium(url, name, kind == "image_url")
