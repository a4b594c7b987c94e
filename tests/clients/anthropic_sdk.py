"""The official `anthropic` SDK, blocking or not, behind the few calls that the tests make."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

from clients.sdk import OnARunner
from support import sdks
from support.tls import NO_TLS

T = TypeVar("T")
HELLO: Any = [{"role": "user", "content": "Hello"}]
ASK: Any = {"model": "kimi-k3", "max_tokens": 1000, "messages": HELLO}


class Blocking:
    def __init__(self, url: str, **key: str) -> None:
        self.client = sdks.anthropic.Anthropic(
            base_url=url,
            max_retries=0,
            timeout=30,
            http_client=sdks.anthropic.DefaultHttpxClient(verify=NO_TLS),
            **key,
        )  # type: ignore[arg-type]

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def create(self, **body: Any) -> Any:
        return self.client.messages.create(**(ASK | body))

    def accumulated(self, **body: Any) -> tuple[list[Any], Any]:
        """The events, and the message that the SDK makes of them."""
        with self.client.messages.stream(**(ASK | body)) as stream:
            return list(stream), stream.get_final_message()

    def count(self, **body: Any) -> int:
        return self.client.messages.count_tokens(
            **({"model": "kimi-k3", "messages": HELLO} | body)
        ).input_tokens


class Async(OnARunner[Any]):
    """The same calls on AsyncAnthropic."""

    def __init__(self, url: str, **key: str) -> None:
        http_client = sdks.anthropic.DefaultAsyncHttpxClient(verify=NO_TLS)
        super().__init__(
            sdks.anthropic.AsyncAnthropic(
                base_url=url,
                max_retries=0,
                timeout=30,
                http_client=http_client,
                **key,  # type: ignore[arg-type]
            )
        )

    def create(self, **body: Any) -> Any:
        return self._run(self.client.messages.create(**(ASK | body)))

    def accumulated(self, **body: Any) -> tuple[list[Any], Any]:
        async def read() -> tuple[list[Any], Any]:
            async with self.client.messages.stream(**(ASK | body)) as stream:
                return [event async for event in stream], await stream.get_final_message()

        return self._run(read())

    def count(self, **body: Any) -> int:
        asked = {"model": "kimi-k3", "messages": HELLO} | body
        return self._run(self.client.messages.count_tokens(**asked)).input_tokens


Sdk = Blocking | Async
