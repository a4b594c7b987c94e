"""The FastAPI application: it serves the docs from the routing table and mounts the gateway below them.

The pages work without the internet: Swagger UI's own files are in `swagger/` (swagger-ui-dist 5.35.0,
Apache-2.0, unchanged), and the content security policy forbids any other host.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response

from kimi_gateway import __version__
from kimi_gateway.edge.home.openapi import TITLE, schema
from kimi_gateway.edge.router import Route
from kimi_gateway.net import jsonio

FOLDER = Path(__file__).with_name("swagger")
FILES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
}
# Swagger UI sets styles on elements and draws its icons as data.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def with_docs(core: Any, table: tuple[Route, ...]) -> FastAPI:
    """The application. `core` is the gateway as an ASGI application, which gets every path outside of the
    docs."""
    app = FastAPI(title=TITLE, version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    document = jsonio.dumps(schema(table))

    @app.api_route("/redoc", methods=["GET", "HEAD"], include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return Response(_read("index.html"), media_type="text/html; charset=utf-8", headers=SECURITY)

    @app.api_route("/docs/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in FILES:
            return Response(status_code=404)
        headers = {**SECURITY, "cache-control": "max-age=3600"}
        return Response(_read(name), media_type=FILES[name], headers=headers)

    @app.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
    async def described() -> Response:
        return Response(document, media_type="application/json")

    app.mount("/", core)
    return app


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()
