"""The routing table: each path, its endpoint, and an example of a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kimi_gateway.app import Endpoints
from kimi_gateway.dialects.chat.dialect import ChatCompletions
from kimi_gateway.dialects.messages.dialect import Messages
from kimi_gateway.dialects.responses.dialect import Compactions, Responses
from kimi_gateway.edge.router import Access, Endpoint, Route
from kimi_gateway.endpoints.counts import Counts
from kimi_gateway.flow.ask import Gateway
from kimi_gateway.http import Request, Response
from kimi_gateway.providers.files import MOST_BYTES

if TYPE_CHECKING:
    from kimi_gateway.accounts.store import Store
    from kimi_gateway.endpoints.account import BalanceAndUsage
    from kimi_gateway.endpoints.batches.api import BatchesApi
    from kimi_gateway.endpoints.files.api import FilesApi
    from kimi_gateway.endpoints.health import Health
    from kimi_gateway.endpoints.kept_answers import KeptAnswers
    from kimi_gateway.endpoints.members import Members
    from kimi_gateway.endpoints.pages.pages import Pages

_CHAT = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
_RESPONSE = {"model": "kimi-k3", "input": "Hello"}
_MESSAGE = {**_CHAT, "max_tokens": 1024}
# SDKs append /v1/messages to a base URL that may end in /v1 or /anthropic.
_MESSAGES = ("/anthropic/v1/messages", "/v1/v1/messages")
_TOKEN = {"token": "the token to check"}
_BATCH = {"input_file_id": "file-…", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
OPEN_LIMIT = 8 * 1024  # bytes of a body without a key
MOST_OF_BATCH = 64 * 1024  # bytes of a request for a batch; its metadata may have 10 KiB
FILE_LIMIT = MOST_BYTES + 64 * 1024  # bytes of a form around the largest file


def _later(endpoint: Callable[[], Endpoint]) -> Endpoint:
    """An endpoint that is made with its first request."""

    async def made(request: Request, **names: Any) -> Response:
        return await endpoint()(request, **names)

    return made


def _chats(gateway: Gateway) -> tuple[Route, ...]:
    responses = Responses(gateway.clock, gateway.keeps)
    return (
        Route(
            "POST",
            "/v1/chat/completions",
            partial(Gateway.ask, gateway, dialect=ChatCompletions(gateway.keeps)),
            "Chat Completions, JSON or SSE (1 credit)",
            access=Access.CREDIT,
            example=_CHAT,
        ),
        Route(
            "POST",
            "/v1/responses",
            partial(Gateway.ask, gateway, dialect=responses),
            "Responses, JSON or SSE (1 credit)",
            access=Access.CREDIT,
            example=_RESPONSE,
        ),
        Route(
            "POST",
            "/v1/responses/compact",
            partial(Gateway.ask, gateway, dialect=Compactions(responses)),
            "A long conversation with a summary in its place (1 credit)",
            access=Access.CREDIT,
            example=_RESPONSE,
        ),
        Route(
            "POST",
            "/v1/messages",
            partial(Gateway.ask, gateway, dialect=Messages()),
            "Anthropic Messages, JSON or SSE (1 credit)",
            access=Access.CREDIT,
            example=_MESSAGE,
            aliases=_MESSAGES,
        ),
    )


def _files(files: Callable[[], FilesApi]) -> tuple[Route, ...]:
    """At the path of OpenAI and the platform, which Anthropic's clients use too, and below /anthropic."""
    every, one, content = "/v1/files", "/v1/files/{file}", "/v1/files/{file}/content"

    def below(method: str, path: str, endpoint: Endpoint, summary: str, **more: Any) -> Route:
        return Route(method, path, endpoint, summary, aliases=(f"/anthropic{path}",), **more)

    return (
        below("POST", every, _later(lambda: files().create), "Upload a file", limit=FILE_LIMIT, streams=True),
        below(
            "POST",
            f"{every}/uploads",
            _later(lambda: files().begin),
            "An address to upload a file to, in the cloud",
            example={"bytes": 20_000_000},
            limit=OPEN_LIMIT,
        ),
        Route(
            "GET",
            "/v1/files",
            _later(lambda: files().list),
            "The account's files",
            aliases=("/anthropic/v1/files",),
        ),
        Route("GET", one, _later(lambda: files().retrieve), "One file", aliases=(f"/anthropic{one}",)),
        Route("DELETE", one, _later(lambda: files().delete), "Delete a file", aliases=(f"/anthropic{one}",)),
        Route(
            "GET",
            content,
            _later(lambda: files().content),
            "The text of a file",
            aliases=(f"/anthropic{content}",),
        ),
    )


def _members(members: Callable[[], Members]) -> tuple[Route, ...]:
    return (
        Route(
            "POST",
            "/user/register",
            _later(lambda: members().register),
            "Open an account, if the operator allows it",
            access=Access.OPEN,
            example={"name": "laptop", "invite_code": "inv_0123456789"},
            limit=OPEN_LIMIT,
        ),
        Route("GET", "/user/keys", _later(lambda: members().keys), "This key, and the keys that it made"),
        Route(
            "POST",
            "/user/keys",
            _later(lambda: members().make_key),
            "Make a key within the limits of this one",
            example={"name": "phone", "limits": {"rpm": 5}, "models": ["kimi-k3"]},
            limit=OPEN_LIMIT,
        ),
        Route(
            "PATCH",
            "/user/keys/{key}",
            _later(lambda: members().change_key),
            "Change a key that this one made",
            example={"name": "phone", "budgets": {"usd/day": 1.5}},
            limit=OPEN_LIMIT,
        ),
        Route(
            "DELETE",
            "/user/keys/{key}",
            _later(lambda: members().delete_key),
            "Delete a key that this one made",
        ),
        Route(
            "POST",
            "/webhooks/payment",
            _later(lambda: members().payment),
            "A payment service reports a payment or a refund, signed",
            access=Access.OPEN,
            example={"id": "evt_1", "type": "payment", "account": "acc_0123456789", "package": "standard"},
            limit=OPEN_LIMIT,
        ),
    )


def _user(account: BalanceAndUsage) -> tuple[Route, ...]:
    return (
        Route(
            "GET",
            "/user/credits",
            account.credits,
            "Balance, limits, budgets, and usage by day and hour",
        ),
        Route("GET", "/user/usage", account.usage, "Usage by day, hour, model or key"),
        Route("GET", "/user/status", account.status, "What is left today, and the last cost"),
    )


def _health(health: Health) -> tuple[Route, ...]:
    return (
        Route("GET", "/ping", health.ping, "Liveness", access=Access.OPEN),
        Route("GET", "/health", health.health, "Readiness, with what is misconfigured", access=Access.OPEN),
    )


def _kept(gateway: Gateway) -> tuple[Route, ...]:
    def kept() -> KeptAnswers:
        from kimi_gateway.endpoints.kept_answers import KeptAnswers

        return KeptAnswers(gateway.gate, gateway.conversations)

    one = "/v1/responses/{response}"
    return (
        Route("GET", one, _later(lambda: kept().retrieve), "A kept response"),
        Route("DELETE", one, _later(lambda: kept().delete), "Delete a kept response"),
        Route("GET", f"{one}/input_items", _later(lambda: kept().input_items), "What a response answered"),
        Route("POST", f"{one}/cancel", _later(lambda: kept().cancel), "Refused: nothing runs in background"),
        Route(
            "DELETE",
            "/v1/conversations/{conversation_id}",
            _later(lambda: kept().delete_conversation),
            "Delete a conversation of Chat Completions",
        ),
    )


def _batches(batches: Callable[[], BatchesApi]) -> tuple[Route, ...]:
    every, one = "/v1/batches", "/v1/batches/{batch}"
    create, cancel = _later(lambda: batches().create), _later(lambda: batches().cancel)
    return (
        Route("POST", every, create, "Run a file of requests", example=_BATCH, limit=MOST_OF_BATCH),
        Route("GET", every, _later(lambda: batches().list), "The account's batches"),
        Route("GET", one, _later(lambda: batches().retrieve), "One batch"),
        Route("POST", f"{one}/cancel", cancel, "Cancel a batch", limit=OPEN_LIMIT),
    )


def _stored(gateway: Gateway, endpoints: Endpoints) -> tuple[Route, ...]:
    return (*_files(endpoints.files), *_batches(endpoints.batches), *_kept(gateway))


def _admin(gateway: Gateway, store: Store, health: Health) -> tuple[Route, ...]:
    if not gateway.settings.admin:
        return ()
    from kimi_gateway.edge import admin_routes  # not in the cloud, where starts count

    return admin_routes.routes(gateway, store, health)


def pages() -> tuple[Route, ...]:
    """The pages for people. They need no gateway, so that a function without rights can serve them."""

    def shown() -> Pages:
        from kimi_gateway.endpoints.pages.pages import Pages

        return Pages()

    page = _later(lambda: shown().page)
    return (
        Route("GET", "/", page, "The playground; JSON for programs", Access.PAGE),
        Route("GET", "/my-credits", page, "Balance, limits and usage of a key", Access.PAGE),
        Route("GET", "/admin", page, "Accounts, keys and upstream tokens", Access.PAGE),
        Route("GET", "/pages/{file+}", _later(lambda: shown().file), "Files of the pages", Access.PAGE),
    )


def routes(gateway: Gateway, endpoints: Endpoints) -> tuple[Route, ...]:
    return (
        *_chats(gateway),
        Route(
            "POST",
            "/v1/messages/count_tokens",
            endpoints.counts.count_tokens,
            "Count the input tokens of a message",
            example=_CHAT,
            aliases=tuple(f"{path}/count_tokens" for path in _MESSAGES),
        ),
        Route(
            "POST",
            "/v1/responses/input_tokens",
            partial(
                Counts.count_input,
                endpoints.counts,
                dialect=Responses(gateway.clock, gateway.keeps),
                conversations=gateway.conversations,
            ),
            "Count the input tokens of a response",
            example=_RESPONSE,
        ),
        *_stored(gateway, endpoints),
        *_members(endpoints.members),
        Route("GET", "/v1/models", endpoints.models.models, "The models", aliases=("/anthropic/v1/models",)),
        Route(
            "GET",
            "/v1/models/{model+}",
            endpoints.models.model,
            "One model",
            aliases=("/anthropic/v1/models/{model+}",),
        ),
        Route(
            "POST",
            "/v1/tokenizers/estimate-token-count",
            endpoints.counts.estimate,
            "Count input tokens",
            example=_CHAT,
        ),
        Route(
            "GET",
            "/v1/users/me/balance",
            endpoints.account.balance,
            "Upstream balance, for keys that may see it",
        ),
        Route(
            "POST",
            "/token/check",
            _later(lambda: endpoints.token_check().check_token),
            "Whether a token is live",
            access=Access.OPEN,
            example=_TOKEN,
            limit=OPEN_LIMIT,
        ),
        *_user(endpoints.account),
        *_admin(gateway, endpoints.account.store, endpoints.health),
        *_health(endpoints.health),
        *pages(),
    )
