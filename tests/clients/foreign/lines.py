"""A JSON line in, a JSON line out: what the call gave, or its exception, with what was seen before it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Seen = list[dict[str, Any]]


def outcomes(call: Callable[[dict[str, Any], Seen], Any]) -> None:
    for line in sys.stdin:
        seen: Seen = []
        try:
            outcome = {"value": call(json.loads(line), seen)}
        except Exception as error:
            classes = [kind.__name__ for kind in type(error).__mro__]
            status, code = (getattr(error, name, None) for name in ("status_code", "code"))
            outcome = {
                "classes": classes, "status": status, "code": code, "message": str(error), "seen": seen,
            }  # fmt: skip
        print(json.dumps(outcome), flush=True)
