"""The web service of kimi.com as third-party clients describe it: sessions, chats in Connect's frames, files.

Written from the facts page, apart from the gateway's reader. It makes ids by itself, forgets nothing that is
not deleted, and refuses what it does not know.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from upstream.server import Request, ScriptedUpstream
from upstream.steps import Part, Reply, Status, Step

Json = dict[str, Any]
TEXT, THOUGHT = "Hello from the web: 你好 👋", "They greet me."
GATEWAY, CHATS = "/apiv2/kimi.gateway.chat.v1.ChatService", "/apiv2/kimi.chat.v1.ChatService"
CHAT, PROGRESS = f"{GATEWAY}/Chat", "/apiv2-files/kimi.gateway.file.v1.FileService/GetFileParseProgress"
MEMBERS = {"scenario", "chat_id", "tools", "project_id", "message", "options", "kimi_plus_id"}
PAGES = (
    {
        "title": "Tides [explained]",
        "url": "https://sea.example/a(1)",
        "snippet": "The moon.",
        "siteName": "Sea",
    },
    {"title": "Moon", "url": "https://moon.example/", "snippet": "Pulls.", "publishTime": "2026-10-01"},
)
LAST = 0x02


def jwt(kind: str, number: int, ends: float) -> str:
    def part(value: Json) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"app_id": "kimi", "typ": kind, "sub": "user-1", "exp": int(ends), "jti": f"{kind}-{number}"}
    return ".".join((part({"alg": "HS512", "typ": "JWT"}), part(claims), f"signature{number:08}"))


def framed(told: Json | bytes, flags: int = 0) -> bytes:
    content = told if isinstance(told, bytes) else json.dumps(told, ensure_ascii=False).encode()
    return bytes((flags,)) + len(content).to_bytes(4, "big") + content


def trailer(code: str = "", reason: str = "", words: str = "", **more: Any) -> bytes:
    """The last frame: of success, or with an error."""
    if not code:
        return framed({}, LAST)
    debug = {"reason": reason, "localizedMessage": {"locale": "en", "message": words}, **more}
    return framed({"error": {"code": code, "message": "plain", "details": [{"debug": debug}]}}, LAST)


def connect(parts: Iterable[Part]) -> Reply:
    return Reply(parts, 200, {"content-type": "application/connect+json"}, chunked=True)


@dataclass(frozen=True)
class Frames:
    """These bytes after the chat has begun, so after its id is told."""

    parts: Sequence[Part]


@dataclass(frozen=True)
class Answer:
    """The right answer, cut into reads of `piece` bytes if that is set."""

    text: str = TEXT
    piece: int = 0


@dataclass
class Chat:
    id: str
    content: str
    made: str
    owner: str


@dataclass
class WebService:
    """`access_life` is in seconds. `rotating`: a refresh token works once. `dead`: the account's session has
    ended, so no token works."""

    up: ScriptedUpstream
    access_life: float = 3600.0
    rotating: bool = True
    dead: bool = False
    ready_after: int = 1  # looks at a file until it is ready
    fails: bool = False  # reading files
    place: str = ""  # of uploads, if it is not this server
    chats: dict[str, Chat] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    refusing: deque[Step] = field(default_factory=deque)  # for the next deletions
    _refreshes: dict[str, str] = field(default_factory=dict)  # with the owner
    _accesses: dict[str, str] = field(default_factory=dict)
    _plan: deque[Answer | Frames | Step] = field(default_factory=deque)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        posts = {
            CHAT: self._chat, f"{CHATS}/DeleteChat": self._delete, f"{CHATS}/ListChats": self._list,
            f"{GATEWAY}/ListMessages": self._messages, "/api/pre-sign-url": self._sign,
            "/api/file": self._file, PROGRESS: self._progress,
        }  # fmt: skip
        for path, answer in posts.items():
            self.up.at(path, Post(self, answer))
        self.up.at("/api/auth/token/refresh", Get(self._refresh))
        self.up.at("/api/user", Get(self._user))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.up.port}"

    @property
    def asked(self) -> list[Json]:
        """The chat requests, each the JSON of its frame."""
        return [json.loads(each.raw[5:]) for each in self.up.requests if each.path == CHAT]

    @property
    def contents(self) -> list[str]:
        return [each["message"]["blocks"][0]["text"]["content"] for each in self.asked]

    def refresh_token(self, owner: str = "one") -> str:
        token = jwt("refresh", next(self._numbers), time.time() + 90 * 86_400)
        self._refreshes[token] = owner
        return token

    def access_token(self, owner: str = "one", life: float | None = None) -> str:
        token = jwt("access", next(self._numbers), time.time() + (self.access_life if life is None else life))
        self._accesses[token] = owner
        return token

    def end_sessions(self) -> None:
        """No access token works any more; refresh tokens do."""
        self._accesses.clear()

    def plan(self, *steps: Answer | Frames | Step) -> None:
        self._plan.extend(steps)

    def forget_plan(self) -> None:
        self._plan.clear()

    def owner(self, request: Request) -> str | None:
        return None if self.dead else self._accesses.get(request.token or "")

    def _refresh(self, request: Request) -> Step:
        self.counted["refresh"] += 1
        token = request.token or ""
        owner = None if self.dead else self._refreshes.get(token)
        if owner is None:
            return Status(401, {"error_type": "auth.token.invalid", "message": "invalid"})
        if self.rotating:
            del self._refreshes[token]
        pair = {"access_token": self.access_token(owner), "refresh_token": self.refresh_token(owner)}
        return Status(200, pair)

    def _user(self, request: Request) -> Step:
        owner = self.owner(request)
        return UNAUTHENTICATED if owner is None else Status(200, {"id": owner, "name": "someone"})

    def _chat(self, request: Request, owner: str) -> Step:
        if request.headers.get("connect-protocol-version") != "1":
            return Status(415, "")
        size = int.from_bytes(request.raw[1:5], "big")
        if request.raw[:1] != b"\0" or size != len(request.raw) - 5:
            return Connect([trailer("invalid_argument", words="no frame")])
        asked = json.loads(request.raw[5:])
        blocks = asked["message"]["blocks"]
        unknown = asked.keys() - MEMBERS
        files = [each["file"]["id"] for each in blocks[1:]]
        if unknown or not asked["options"].get("model") or any(id not in self.stored for id in files):
            return Connect([trailer("invalid_argument", words=f"unknown: {sorted(unknown)} {files}")])
        step = self._plan.popleft() if self._plan else Answer()
        if not isinstance(step, Answer | Frames):
            return step
        number = next(self._numbers)
        chat = Chat(f"chat{number:016}", blocks[0]["text"]["content"], datetime.now(UTC).isoformat(), owner)
        self.chats[chat.id] = chat
        head = [{"heartbeat": {}}, {"op": "set", "mask": "chat", "chat": {"id": chat.id, "name": "New"}}]
        user = {"id": f"m{number}u", "role": "user", "status": "MESSAGE_STATUS_COMPLETED"}
        head.append({"op": "set", "mask": "message", "message": user})
        echo = {"id": "u", "messageId": user["id"], "text": {"content": chat.content}}
        head.append({"op": "set", "mask": "block.text", "block": echo})
        begun = b"".join(map(framed, head))
        if isinstance(step, Frames):
            return Connect([begun, *step.parts])
        whole = begun + b"".join(map(framed, self._answer(step.text, asked, number))) + trailer()
        piece = step.piece or len(whole)
        return Connect([whole[at : at + piece] for at in range(0, len(whole), piece)])

    def _answer(self, text: str, asked: Json, number: int) -> list[Json]:
        id = f"m{number}a"
        message = {"id": id, "parentId": f"m{number}u", "role": "assistant"}
        frames: list[Json] = [
            {"op": "set", "mask": "message", "message": {**message, "status": "MESSAGE_STATUS_GENERATING"}}
        ]

        def block(op: str, name: str, content: str) -> Json:
            return {"op": op, "block": {"id": name, "messageId": id, name: {"content": content}}}

        if asked["options"].get("thinking"):
            frames += [block("set", "think", THOUGHT[:4]), block("append", "think", THOUGHT[4:])]
        if asked["tools"]:
            args = json.dumps({"queries": ["tides"]})
            frames.append({"op": "set", "block": {"id": "t", "messageId": id, "tool": {"args": args}}})
            found = [{"id": str(at), "refIndex": at, "base": page} for at, page in enumerate(PAGES, 1)]
            refs = {"searchChunks": found}
            frames.append({"op": "set", "mask": "message.refs", "message": {"id": id, "refs": refs}})
        frames += [block("set", "text", text[:2]), {"heartbeat": {}}]
        frames += [block("append", "text", text[at : at + 6]) for at in range(2, len(text), 6)]
        done = {**message, "status": "MESSAGE_STATUS_COMPLETED"}
        return [*frames, {"op": "set", "mask": "message.status", "message": done}, {"done": {}}]

    def _delete(self, request: Request, owner: str) -> Step:
        self.counted["delete"] += 1
        if self.refusing:
            return self.refusing.popleft()
        chat = self.chats.get(request.body["chat_id"])
        if chat is None or chat.owner != owner:
            return Status(404, {"code": "not_found", "message": "chat not found"})
        del self.chats[chat.id]
        self.deleted.append(chat.id)
        return Status(200, {})

    def _list(self, request: Request, owner: str) -> Step:
        own = [chat for chat in reversed(self.chats.values()) if chat.owner == owner]
        listed = [{"id": chat.id, "name": "a title", "createTime": chat.made} for chat in own]
        return Status(200, {"chats": listed[: request.body["page_size"]]})

    def _messages(self, request: Request, owner: str) -> Step:
        chat = self.chats[request.body["chat_id"]]
        blocks = [{"text": {"content": chat.content}}]
        answer = {"id": "a", "role": "assistant", "blocks": [{"text": {"content": "an answer"}}]}
        return Status(200, {"messages": [answer, {"id": "u", "role": "user", "blocks": blocks}]})

    def _sign(self, request: Request, owner: str) -> Step:
        name = f"{request.body['action']}{next(self._numbers)}"
        self.up.at(f"/storage/{name}", Put(self))
        url = f"{self.place or self.address}/storage/{name}?signature=1"
        return Status(200, {"url": url, "object_name": name, "file_id": name})

    def _file(self, request: Request, owner: str) -> Step:
        body = request.body
        name = body["file_id"] if body["type"] == "image" else body["object_name"]
        if name not in self.stored:
            return Status(400, {"error_type": "file.missing", "message": "no such object"})
        self.counted[name] += 1
        ready = self.counted[name] >= self.ready_after
        return Status(
            200, {"id": name, "name": body["name"], "status": "initialized" if ready else "pending"}
        )

    def _progress(self, request: Request, owner: str) -> Step:
        status = "PROCESS_STATUS_FAILED" if self.fails else "PROCESS_STATUS_SUCCESS"
        ids = request.body["file_ids"]
        return Status(200, {"progresses": [{"fileId": id, "status": status} for id in ids]})


UNAUTHENTICATED = Status(401, {"code": "unauthenticated", "message": "token expired"})


@dataclass(frozen=True)
class Connect:
    parts: Sequence[Part]

    def reply(self, request: Request) -> Reply:
        return connect(self.parts)


@dataclass(frozen=True)
class Get:
    answer: Any

    def reply(self, request: Request) -> Reply:
        step: Step = self.answer(request)
        return step.reply(request)


@dataclass(frozen=True)
class Post:
    service: WebService
    answer: Any

    def reply(self, request: Request) -> Reply:
        owner = self.service.owner(request)
        step: Step = UNAUTHENTICATED if owner is None else self.answer(request, owner)
        return step.reply(request)


@dataclass(frozen=True)
class Put:
    """The storage: another host's in life, so a session's token there is a leak."""

    service: WebService

    def reply(self, request: Request) -> Reply:
        if request.headers.get("authorization") or request.method != "PUT":
            return Status(403, "no").reply(request)
        self.service.stored[request.path.rpartition("/")[2]] = request.raw
        return Status(200, "").reply(request)
