"""The official `openai` SDK, blocking or not, behind the few calls that the tests make."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from support import sdks
from support.tls import NO_TLS
from upstream import Kimi, Reply, Request, Status, error
from upstream.steps import Part, rate_limited

T = TypeVar("T")
C = TypeVar("C")
HELLO: Any = [{"role": "user", "content": "Hello"}]


class Blocking:
    def __init__(self, url: str, key: str) -> None:
        self.client = sdks.openai.OpenAI(
            api_key=key,
            base_url=url,
            max_retries=0,
            timeout=30,
            http_client=sdks.openai.DefaultHttpxClient(verify=NO_TLS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()

    def chat(self, **body: Any) -> Any:
        return self.client.chat.completions.create(**{"model": "kimi-k3", "messages": HELLO} | body)

    def stream(self, see: Callable[[Any], None] = lambda chunk: None, **body: Any) -> list[Any]:
        """All chunks; each is shown to `see` as it comes."""
        chunks = []
        for chunk in self.chat(stream=True, **body):
            see(chunk)
            chunks.append(chunk)
        return chunks

    def accumulated(self, **body: Any) -> Any:
        """A stream put together by the SDK itself."""
        request = {"model": "kimi-k3", "messages": HELLO} | body
        with self.client.chat.completions.stream(**request) as stream:
            return stream.get_final_completion()

    def respond(self, **body: Any) -> Any:
        return self.client.responses.create(**{"model": "kimi-k3", "input": "Hello"} | body)

    def events(self, see: Callable[[Any], None] = lambda event: None, **body: Any) -> list[Any]:
        """All events of a response; each is shown to `see` as it comes."""
        events = []
        for event in self.respond(stream=True, **body):
            see(event)
            events.append(event)
        return events

    def responded(self, **body: Any) -> tuple[list[Any], Any]:
        """A streamed response put together by the SDK itself: its events, and what it came to."""
        with self.client.responses.stream(**{"model": "kimi-k3", "input": "Hello"} | body) as stream:
            return list(stream), stream.get_final_response()

    def parsed(self, **body: Any) -> Any:
        return self.client.responses.parse(**{"model": "kimi-k3", "input": "Hello"} | body)

    def raw(self, **body: Any) -> Any:
        request = {"model": "kimi-k3", "messages": HELLO} | body
        return self.client.chat.completions.with_raw_response.create(**request)

    def models(self) -> list[Any]:
        return list(self.client.models.list())

    def model(self, name: str) -> Any:
        return self.client.models.retrieve(name)


class OnARunner(Generic[C]):
    """An asynchronous client whose calls are run to their end."""

    def __init__(self, client: C) -> None:
        self.client = client
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(self.client.close())  # type: ignore[attr-defined]
        self._runner.close()

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(step)


class Async(OnARunner[Any]):
    """The same calls on AsyncOpenAI."""

    def __init__(self, url: str, key: str) -> None:
        http_client = sdks.openai.DefaultAsyncHttpxClient(verify=NO_TLS)
        super().__init__(
            sdks.openai.AsyncOpenAI(
                api_key=key, base_url=url, max_retries=0, timeout=30, http_client=http_client
            )
        )

    def chat(self, **body: Any) -> Any:
        return self._run(
            self.client.chat.completions.create(**{"model": "kimi-k3", "messages": HELLO} | body)
        )

    def stream(self, see: Callable[[Any], None] = lambda chunk: None, **body: Any) -> list[Any]:
        async def read() -> list[Any]:
            request = {"model": "kimi-k3", "messages": HELLO, "stream": True} | body
            chunks: AsyncIterator[Any] = await self.client.chat.completions.create(**request)
            seen = []
            async for chunk in chunks:
                see(chunk)
                seen.append(chunk)
            return seen

        return self._run(read())

    def accumulated(self, **body: Any) -> Any:
        async def read() -> Any:
            request = {"model": "kimi-k3", "messages": HELLO} | body
            async with self.client.chat.completions.stream(**request) as stream:
                return await stream.get_final_completion()

        return self._run(read())

    def respond(self, **body: Any) -> Any:
        return self._run(self.client.responses.create(**{"model": "kimi-k3", "input": "Hello"} | body))

    def events(self, see: Callable[[Any], None] = lambda event: None, **body: Any) -> list[Any]:
        async def read() -> list[Any]:
            request = {"model": "kimi-k3", "input": "Hello", "stream": True} | body
            events: AsyncIterator[Any] = await self.client.responses.create(**request)
            seen = []
            async for event in events:
                see(event)
                seen.append(event)
            return seen

        return self._run(read())

    def responded(self, **body: Any) -> tuple[list[Any], Any]:
        async def read() -> tuple[list[Any], Any]:
            request = {"model": "kimi-k3", "input": "Hello"} | body
            async with self.client.responses.stream(**request) as stream:
                return [event async for event in stream], await stream.get_final_response()

        return self._run(read())

    def parsed(self, **body: Any) -> Any:
        return self._run(self.client.responses.parse(**{"model": "kimi-k3", "input": "Hello"} | body))

    def raw(self, **body: Any) -> Any:
        request = {"model": "kimi-k3", "messages": HELLO} | body
        return self._run(self.client.chat.completions.with_raw_response.create(**request))

    def models(self) -> list[Any]:
        async def read() -> list[Any]:
            return [model async for model in self.client.models.list()]

        return self._run(read())

    def model(self, name: str) -> Any:
        return self._run(self.client.models.retrieve(name))


Sdk = Blocking | Async
Connect = Callable[..., Sdk]


@dataclass(frozen=True)
class HeldBack:
    """Sends the first events, and the others only when it is told to."""

    go: threading.Event
    first: int = 4
    inner: Kimi = Kimi()

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        return replace(inner, parts=self._parts(list(inner.parts)))

    def _parts(self, parts: list[Part]) -> Iterator[Part]:
        yield from parts[: self.first]
        while not self.go.is_set():
            yield 0.005
        yield from parts[self.first :]


# By case: what the upstream does, what is asked, and which of the SDK's exceptions with which code it is.
REFUSALS: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "unknown model": (None, {"model": "gpt-4"}, "NotFoundError", "model_not_found"),
    "wrong type": (None, {"temperature": "hot"}, "BadRequestError", "invalid_request"),
    "input too long": (
        Status(400, error("invalid_request_error", "Your request exceeded model token limit : 262144")),
        {},
        "BadRequestError",
        "context_length_exceeded",
    ),
    "content filter": (
        Status(400, error("content_filter", "The request was rejected: high risk")),
        {},
        "BadRequestError",
        "content_filter",
    ),
    "upstream rate limit": (
        rate_limited("rate_limit_reached", retry_after=30),
        {},
        "RateLimitError",
        "rate_limit_exceeded",
    ),
    "upstream misconfigured": (
        Status(401, error("invalid_authentication_error", "Invalid Authentication")),
        {},
        "InternalServerError",
        "service_unavailable",
    ),
}
