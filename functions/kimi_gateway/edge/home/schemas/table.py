"""The schemas of each route, by method and path: of its body, its answer, and the events of its stream."""

from __future__ import annotations

from typing import NamedTuple

from kimi_gateway.edge.home.schemas import accounts, chat, messages, responses, stored
from kimi_gateway.edge.home.schemas.notation import Schema

SCHEMAS: dict[str, Schema] = {
    **chat.SCHEMAS,
    **messages.SCHEMAS,
    **responses.SCHEMAS,
    **stored.SCHEMAS,
    **accounts.SCHEMAS,
}


class Described(NamedTuple):
    """Names of schemas; empty where a route has none. `kind` is the answer's media type, `refuses` is a route
    without an answer of success."""

    answer: str
    body: str = ""
    events: str = ""
    kind: str = "application/json"
    refuses: bool = False


_ACCOUNT, _KEY, _FILE = "/admin/accounts/{account}", "/admin/keys/{key}", "/v1/files/{file}"
_RESPONSE = "/v1/responses/{response}"
ROUTES: dict[str, Described] = {
    "POST /v1/chat/completions": Described("ChatAnswer", "ChatRequest", "ChatEvent"),
    "POST /v1/messages": Described("MessagesAnswer", "MessagesRequest", "MessagesEvent"),
    "POST /v1/responses": Described("Response", "ResponseRequest", "ResponseEvent"),
    "POST /v1/responses/compact": Described("ResponseCompaction", "ResponseCountRequest"),
    "POST /v1/messages/count_tokens": Described("MessagesCount", "MessagesCountRequest"),
    "POST /v1/responses/input_tokens": Described("ResponseCount", "ResponseCountRequest"),
    "POST /v1/tokenizers/estimate-token-count": Described("Count", "CountRequest"),
    f"GET {_RESPONSE}": Described("Response"),
    f"DELETE {_RESPONSE}": Described("ResponseDeleted"),
    f"GET {_RESPONSE}/input_items": Described("ResponseItems"),
    f"POST {_RESPONSE}/cancel": Described("Response", refuses=True),
    "DELETE /v1/conversations/{conversation_id}": Described("ConversationDeleted"),
    "POST /v1/files": Described("File", "FileForm"),
    "POST /v1/files/uploads": Described("Upload", "UploadRequest"),
    "GET /v1/files": Described("FilePage"),
    f"GET {_FILE}": Described("File"),
    f"DELETE {_FILE}": Described("FileDeleted"),
    f"GET {_FILE}/content": Described("FileText", kind="text/plain"),
    "POST /v1/batches": Described("Batch", "BatchRequest"),
    "GET /v1/batches": Described("BatchPage"),
    "GET /v1/batches/{batch}": Described("Batch"),
    "POST /v1/batches/{batch}/cancel": Described("Batch"),
    "GET /v1/models": Described("Models"),
    "GET /v1/models/{model}": Described("Model"),
    "GET /v1/users/me/balance": Described("Balance"),
    "POST /token/check": Described("TokenLive", "TokenRequest"),
    "GET /user/credits": Described("Credits"),
    "GET /user/usage": Described("UsagePage"),
    "GET /user/status": Described("Status"),
    "POST /user/register": Described("Registered", "RegisterRequest"),
    "GET /user/keys": Described("OwnKeys"),
    "POST /user/keys": Described("OwnKey", "OwnKeyRequest"),
    "PATCH /user/keys/{key}": Described("OwnKey", "OwnKeyRequest"),
    "DELETE /user/keys/{key}": Described("OwnKeyDeleted"),
    "POST /webhooks/payment": Described("Payment", "PaymentRequest"),
    "GET /admin/accounts": Described("AccountPage"),
    "POST /admin/accounts": Described("Account", "AccountRequest"),
    f"GET {_ACCOUNT}": Described("Account"),
    f"PATCH {_ACCOUNT}": Described("Account", "AccountChange"),
    f"DELETE {_ACCOUNT}": Described("AccountDeleted"),
    f"POST {_ACCOUNT}/grant": Described("Account", "GrantRequest"),
    f"POST {_ACCOUNT}/deduct": Described("Account", "DeductRequest"),
    "GET /admin/keys": Described("KeyPage"),
    "POST /admin/keys": Described("Key", "KeyRequest"),
    f"GET {_KEY}": Described("Key"),
    f"PATCH {_KEY}": Described("Key", "KeyChange"),
    f"DELETE {_KEY}": Described("Key"),
    f"POST {_KEY}/suspend": Described("Key", "Empty"),
    f"POST {_KEY}/resume": Described("Key", "Empty"),
    f"POST {_KEY}/rotate": Described("Key", "RotateRequest"),
    "GET /admin/packages": Described("Packages"),
    "GET /admin/usage": Described("UsagePage"),
    "GET /admin/pool": Described("Pool"),
    "GET /admin/problems": Described("Problems"),
    "GET /admin/requests": Described("Requests"),
    "GET /ping": Described("", kind="text/plain"),
    "GET /health": Described("Health"),
}
