"""The AWS Lambda Runtime API in asyncio: streams answers from Python, and runs many invocations in one
process.

It uses only the standard library and nothing of the package around it, so other projects can copy this
folder. A handler is `async def handler(event, context: Context) -> Streamed | JSON`; it does not know the
loop that calls it.
"""

from .handling import Context, Handler, Lifecycle, Streamed, request_id, trace_id
from .loop import main

__all__ = ["Context", "Handler", "Lifecycle", "Streamed", "main", "request_id", "trace_id"]
