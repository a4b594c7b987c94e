"""The AWS Lambda Runtime API in asyncio: answers streamed from Python, and many invocations in one process.

Standard library only, and nothing of the package around it: this folder can be lifted out. A handler is
`async def handler(event, context: Context) -> Streamed | JSON`; it does not know the loop that calls it.
"""

from .handling import Context, Handler, Lifecycle, Streamed, request_id, trace_id
from .loop import main

__all__ = ["Context", "Handler", "Lifecycle", "Streamed", "main", "request_id", "trace_id"]
