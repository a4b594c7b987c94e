"""The routes of the operator's API. `Admin.run` checks the operator's role for each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kimi_gateway.edge.router import Access, Endpoint, Route
from kimi_gateway.http import Request, Response

if TYPE_CHECKING:
    from kimi_gateway.accounts.store import Store
    from kimi_gateway.endpoints.health import Health
    from kimi_gateway.flow.ask import Gateway

LIMIT = 16 * 1024  # bytes of a body
_ACCOUNT, _KEY = "/admin/accounts/{account}", "/admin/keys/{key}"
_NEW_KEY = {"name": "alice", "credits": 500, "rpm": 60, "models": ["kimi-k3"], "budgets": {"usd/day": 5}}
# Method, path, method of `Admin`, summary, and an example of a body.
TABLE: tuple[tuple[str, str, str, str, dict[str, Any] | None], ...] = (
    ("GET", "/admin/accounts", "accounts", "All accounts with their keys", None),
    ("POST", "/admin/accounts", "create_account", "Create an account", {"name": "alice", "credits": 500}),
    ("GET", _ACCOUNT, "account", "One account", None),
    ("PATCH", _ACCOUNT, "update_account", "Rename it, set its budgets", {"budgets": {"usd/month": 20}}),
    ("DELETE", _ACCOUNT, "delete_account", "Delete an account with its keys and usage", None),
    ("POST", f"{_ACCOUNT}/grant", "grant", "Add credits or a package", {"credits": 100}),
    ("POST", f"{_ACCOUNT}/deduct", "deduct", "Take credits away", {"credits": 100}),
    ("GET", "/admin/packages", "packages", "The packages that can be granted", None),
    ("GET", "/admin/keys", "keys", "All keys with their last use", None),
    ("POST", "/admin/keys", "create_key", "Create a key; it is shown once", _NEW_KEY),
    ("GET", _KEY, "key", "One key with its limits in force", None),
    ("PATCH", _KEY, "update_key", "Change a key at once, everywhere", {"rpm": 30, "note": "laptop"}),
    ("DELETE", _KEY, "revoke_key", "Revoke a key for good", None),
    ("POST", f"{_KEY}/suspend", "suspend_key", "Stop a key until it is resumed", {}),
    ("POST", f"{_KEY}/resume", "resume_key", "Let a suspended key work again", {}),
    ("POST", f"{_KEY}/rotate", "rotate_key", "Give a key a new secret; it is shown once", {"overlap": "24h"}),
    ("GET", "/admin/usage", "usage", "Usage by day, hour, account, key or model", None),
    ("GET", "/admin/pool", "pool", "The upstream tokens, by their hashes", None),
    ("GET", "/admin/problems", "problems", "What the running gateway knows to be wrong", None),
    ("GET", "/admin/requests", "requests", "The latest requests of this process", None),
)


def routes(gateway: Gateway, store: Store, health: Health) -> tuple[Route, ...]:
    def endpoint(name: str) -> Endpoint:
        async def run(request: Request, **names: Any) -> Response:
            from kimi_gateway.endpoints.admin.api import Admin  # few requests need it

            admin = Admin(gateway.gate, store, gateway.registry, gateway.settings, gateway.clock, health)
            return await admin.run(name, request, **names)

        return run

    return tuple(
        Route(method, path, endpoint(name), summary, Access.OPERATOR, example, limit=LIMIT)
        for method, path, name, summary, example in TABLE
    )
