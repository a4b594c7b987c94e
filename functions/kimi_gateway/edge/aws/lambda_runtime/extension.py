"""An internal extension that does nothing. Lambda sends SIGTERM only to functions that have an extension.

Without one a function is killed at once: `closing` and `stop` of a `Lifecycle` never run. With an internal
one the process gets up to 500 ms. Source: the Lambda guide, "Using the Lambda Extensions API", Shutdown phase
(read 2026-11). AWS's own Go runtime registers one in the same way (`WithEnableSIGTERM`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from .api import EXTENSION, Api, ApiLost

NAME = "lambda-runtime"

log = logging.getLogger("lambda_runtime")


class Extension:
    """It must be registered before the runtime asks for its first invocation."""

    def __init__(self, address: str) -> None:
        self._api = Api(address)
        self._registered = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def registered(self) -> None:
        """Wait for the platform's answer. A refusal is logged and changes nothing else."""
        waiting = asyncio.create_task(self._registered.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            if id := await self._register():
                self._registered.set()
                # Tells the platform that the extension is ready. It wants no events, so no answer ever comes.
                ready = [("Lambda-Extension-Identifier", id)]
                with suppress(ApiLost):
                    await self._api.ask("GET", f"{EXTENSION}/event/next", ready)
        finally:
            self._api.close()

    async def _register(self) -> str:
        """The extension's identifier; empty if the platform gave none."""
        named = [("Lambda-Extension-Name", NAME), ("Content-Type", "application/json")]
        try:
            reply = await self._api.ask("POST", f"{EXTENSION}/register", named, b'{"events":[]}')
        except ApiLost as exc:
            log.warning("no extension, so no SIGTERM: %s", exc)
            return ""
        if reply.status != 200:
            detail = reply.body[:300].decode("utf-8", "replace")
            log.warning("no extension, so no SIGTERM: status %d %s", reply.status, detail)
            return ""
        return reply.headers.get("lambda-extension-identifier", "")
