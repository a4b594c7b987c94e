"""Signs what a payment service reports."""

from __future__ import annotations

import hmac
import json
from typing import Any

from support.inprocess import Answered, InProcess

SECRET = "whsec-not-a-real-one"
HOOK = "/webhooks/payment"


def signature(raw: bytes, at: int, secret: str = SECRET) -> str:
    return f"t={at},v1={hmac.digest(secret.encode(), f'{at}.'.encode() + raw, 'sha256').hex()}"


def report(desk: InProcess, body: dict[str, Any], at: int | None = None, secret: str = SECRET) -> Answered:
    raw = json.dumps(body).encode()
    signed = signature(raw, int(desk.now) if at is None else at, secret)
    return desk.call("POST", HOOK, raw, None, ("x-signature", signed))
