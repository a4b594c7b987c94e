"""Serves the pages and their static files. There is no build step: the files in `static` are sent unchanged.

The pages use relative addresses only, so they work below any prefix (/api, a stage of API Gateway). The
content security policy allows neither inline code nor another origin.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

from kimi_gateway import __version__
from kimi_gateway.dataclass import dataclass
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.errors import NotFound
from kimi_gateway.http import Request, Response

FOLDER = Path(__file__).with_name("static")
DOCUMENTS = {"/": "chat.html", "/my-credits": "credits.html", "/admin": "admin.html"}
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)
KEEP = "no-cache"  # a browser asks each time, and gets 304 without a body until the content has changed


@dataclass(frozen=True, slots=True)
class File:
    """A static file as it is sent. `tag` names its content, whatever its encoding."""

    kind: str
    plain: bytes
    packed: bytes
    tag: str


class Pages:
    async def page(self, request: Request) -> Response:
        """One of the pages. A client that does not ask for HTML gets a JSON description of `/`. Raises
        NotFound for a trailing slash, below which relative addresses would be wrong."""
        path = request.path.removeprefix("/api") or "/"
        if path not in DOCUMENTS:
            raise NotFound(f"There is no {path[:120]} here; leave out the slash at its end.")
        if path == "/" and not _wants_html(request):
            response = answer(_described())
            response.headers.append(("vary", "accept"))
            return response
        return _sent(request, _file(DOCUMENTS[path]), "accept, accept-encoding")

    async def file(self, request: Request, file: str) -> Response:
        """A file of the pages. Raises NotFound."""
        if file not in names():
            raise NotFound("There is no such file of the pages.")
        return _sent(request, _file(file), "accept-encoding")


def _described() -> dict[str, object]:
    return {
        "name": "Kimi Gateway",
        "version": __version__,
        "api": ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/models"],
        "pages": list(DOCUMENTS),
        "health": "/health",
    }


def _wants_html(request: Request) -> bool:
    return any("text/html" in each.lower() for each in request.headers.all("accept"))


@cache
def names() -> frozenset[str]:
    """The files below /pages. Documents are not among them: their relative addresses would be wrong there."""
    found = [file for file in FOLDER.rglob("*") if file.suffix in TYPES and file.suffix != ".html"]
    return frozenset(file.relative_to(FOLDER).as_posix() for file in found)


@cache
def _file(name: str) -> File:
    plain = (FOLDER / name).read_bytes()
    tag = f'W/"{hashlib.sha256(plain).hexdigest()[:20]}"'
    return File(TYPES[Path(name).suffix], plain, gzip.compress(plain, 9, mtime=0), tag)


def _sent(request: Request, file: File, vary: str) -> Response:
    headers = [("etag", file.tag), ("cache-control", KEEP), ("vary", vary), *SECURITY]
    known = [tag.strip() for line in request.headers.all("if-none-match") for tag in line.split(",")]
    if file.tag in known or "*" in known:
        return Response(304, headers)
    headers.append(("content-type", file.kind))
    if not _takes_gzip(request):
        return Response(200, headers, file.plain)
    return Response(200, [*headers, ("content-encoding", "gzip")], file.packed)


def _takes_gzip(request: Request) -> bool:
    for line in request.headers.all("accept-encoding"):
        for each in line.lower().split(","):
            coding, _, weight = each.partition(";")
            if coding.strip() == "gzip":
                return weight.replace(" ", "").rstrip("0").rstrip(".") != "q="
    return False
