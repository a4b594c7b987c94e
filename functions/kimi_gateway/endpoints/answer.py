"""An answer in JSON."""

from __future__ import annotations

from typing import Any

from kimi_gateway.http import Response
from kimi_gateway.net import jsonio


def answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(status, [("content-type", "application/json")], jsonio.dumps(body))
