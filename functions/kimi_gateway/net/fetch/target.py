"""Strict parsing of a client's address: one meaning only, or a refusal. Pure."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, urljoin

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net.fetch.addresses import literal

LONGEST = 8 * 1024  # characters
PORTS = {"http": 80, "https": 443}
_PARTS = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.I)
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", re.A)
_NAME = re.compile(
    r"(?=.{1,253}\.?\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_KEPT = "/?#[]@!$&'()*+,;=:%-._~"  # characters of a path and query that stay unescaped


class BadTarget(ValueError):
    """The text says what is wrong with the address, without quoting it."""


@dataclass(frozen=True, slots=True)
class Target:
    """`host` is a lower-case name, or an address without brackets; then `literal` is that address too. `path`
    includes the query."""

    scheme: str
    host: str
    port: int
    path: str
    literal: str | None = None

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def read(text: str, more_ports: frozenset[int] = frozenset()) -> Target:
    """Parse an address. `more_ports` are allowed besides 80 and 443. Raises BadTarget."""
    if len(text) > LONGEST:
        raise BadTarget(f"the address is longer than {LONGEST} characters")
    if any(
        ch in '\\"<>^`{|}' or ch <= " " or unicodedata.category(ch) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
        for ch in text
    ):
        raise BadTarget("the address has blanks, control characters or backslashes")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise BadTarget("the address does not begin with http:// or https://")
    scheme, authority, path = parts[1].lower(), parts[2], parts[3]
    if "@" in authority:
        raise BadTarget("the address has a user name")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise BadTarget("the address has no valid host and port")
    port = int(found[2]) if found[2] is not None else PORTS[scheme]
    if port not in more_ports and port not in PORTS.values():
        raise BadTarget("the address names a port other than 80 and 443")
    host = _host(found[1])
    try:
        address = literal(host)
    except ValueError as exc:
        raise BadTarget(str(exc)) from None
    path = quote(path, safe=_KEPT)
    return Target(scheme, address or host, port, path if path.startswith("/") else "/" + path, address)


def redirected(target: Target, location: str, more_ports: frozenset[int] = frozenset()) -> Target:
    """The target of a redirect. Raises BadTarget, also if it leaves https."""
    if not 0 < len(location) <= LONGEST:
        raise BadTarget("the redirect has no address, or too long a one")
    try:
        joined = urljoin(target.url, location)
    except ValueError:
        raise BadTarget("the redirect is not an address") from None
    to = read(joined, more_ports)
    if target.scheme == "https" and to.scheme != "https":
        raise BadTarget("the redirect leaves https")
    return to


def _host(text: str) -> str:
    if text.startswith("["):
        return text[1:-1].lower()
    if not text.isascii():
        if any(unicodedata.category(ch).startswith("N") for ch in text if ord(ch) > 127):
            raise BadTarget("the host has digits that are not ASCII")
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            raise BadTarget("the host is not a valid name") from None
    host = text.lower()
    if _NAME.fullmatch(host) is None:
        raise BadTarget("the host is not a valid name")
    return host
