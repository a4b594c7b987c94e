"""The FastAPI application: it serves the docs from the routing table, and mounts the gateway below them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse

from kimi_gateway import __version__
from kimi_gateway.edge.http import Route

TITLE = "Kimi Gateway"


def with_docs(core: Any, table: tuple[Route, ...]) -> FastAPI:
    """`core` is the gateway as an ASGI application; all that is not a page of the docs goes there."""
    app = FastAPI(title=TITLE, version=__version__)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")

    app.mount("/", core)
    app.openapi = lambda: schema(table)  # type: ignore[method-assign]
    return app


def schema(table: tuple[Route, ...]) -> dict[str, Any]:
    """OpenAPI from the routing table."""
    document = get_openapi(title=TITLE, version=__version__, routes=[])
    for route in table:
        operation: dict[str, Any] = {
            "summary": route.summary,
            "responses": {"200": {"description": "Success"}},
        }
        if not route.open:
            operation["security"] = [{"bearer": []}, {"api_key": []}]
        if route.prefix is not None:
            name = route.path.partition("{")[2].rstrip("}")
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        if route.example is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": {"type": "object"}, "example": route.example}},
            }
        document["paths"].setdefault(route.path, {})[route.method.lower()] = operation
    document["components"] = {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    }
    return document
