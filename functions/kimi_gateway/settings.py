"""Settings, read once from the environment; all faults are reported together. A test compares README's table
with FIELDS."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kimi_gateway.dataclass import dataclass

HOSTS = {"ai": "https://api.moonshot.ai/v1", "cn": "https://api.moonshot.cn/v1"}
PREFIX = "KIMI_GATEWAY_"
OWN_KEY = "sk-kg-"  # prefix of this gateway's keys (accounts.keys)
OF_VENDOR = "KIMI_GATEWAY_TOKENS_"  # with a vendor's name behind: its tokens
OPTIONS = {"PORT": "--port", "HOST": "--host", "ADDRESS": "--host", "BIND": "--host", "WORKERS": "--workers"}
ON_LAMBDA = "AWS_LAMBDA_RUNTIME_API"  # set in every function's environment
LONGEST_ON_LAMBDA = 600.0  # seconds for a request, because Lambda bills time


class SettingsFault(Exception):
    """One or more settings are wrong; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Times are seconds, sizes bytes."""

    moonshot_api_key: tuple[str, ...] = field(default=(), repr=False)
    vendor_tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    base_url: str = HOSTS["ai"]
    table: str = ""
    secret: str = ""
    uploads: str = ""
    data: Path = Path()
    models: Path | None = None
    aliases: tuple[tuple[str, str], ...] = ()
    signup_credits: int = 100
    unpriced: str = "refuse"
    packages: tuple[tuple[str, int, int | None], ...] = ()
    register: str = "off"
    register_daily: int = 100
    account_keys: int = 20
    payment_secret: tuple[str, ...] = field(default=(), repr=False)
    keep_usage: int = 90
    admin: bool = True
    body_limit: int = 48 * 2**20
    body_memory: int = 256 * 2**20
    answer_limit: int = 64 * 2**20
    event_limit: int = 8 * 2**20
    connect_timeout: float = 30
    first_byte_timeout: float = 600
    idle_timeout: float = 90
    max_request: float = 0
    lease: float = 660
    token_concurrency: int = 0
    passthrough: bool = False
    passthrough_limits: tuple[int | None, int | None, int | None] = (20, 600, 5_000)
    account_concurrency: int = 250  # a quarter of the least connections of net/http1.py
    keep_conversations: bool = True
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kimi_web: bool = False
    search: bool = True
    search_rounds: int = 5
    search_seconds: float = 90
    account_files: int = 100
    account_file_bytes: int = 2**30
    batches: tuple[str, ...] = ()
    keep_texts: int = 86_400
    fetch_allowed: tuple[str, ...] = ()
    attachment_limit: int = 100 * 2**20
    extract: str = "provider"
    connections: int = 10_000
    keyless_per_address: int = 64
    trusted_proxies: tuple[str, ...] = ()
    ping_interval: float = 15
    drain: float = 10
    anthropic: str = "pivot"
    log_level: str = "info"
    log_format: str = "auto"
    metrics: tuple[str, int] | None = None
    alerts_url: str = field(default="", repr=False)  # an address, or "log"
    alerts_balance: float = 0
    otlp: Mapping[str, str] = field(default_factory=dict, repr=False)  # OTEL_…, if they have an endpoint

    @property
    def telemetry(self) -> bool:
        """Whether something counts besides the log."""
        return self.metrics is not None or bool(self.otlp or self.alerts_url)


def tokens(parts: Iterable[str]) -> tuple[str, ...]:
    """Stripped tokens without duplicates. Raises ValueError, whose text contains no token."""
    tokens = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if any(token.startswith(OWN_KEY) for token in tokens):
        raise ValueError("holds a key of this gateway (sk-kg-…), not a token of the Kimi platform")
    if not all(token.isascii() and token.isprintable() and " " not in token for token in tokens):
        raise ValueError("holds a token with blanks or characters that no header can carry")
    return tokens


def _base_url(text: str) -> str:
    url = HOSTS.get(text.strip().lower(), text.strip()).rstrip("/")
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError for an invalid port
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("contains blanks or characters that a URL cannot have")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is neither ai, cn nor an http(s) URL such as https://api.moonshot.ai/v1")
    if parts.username or parts.password:
        raise ValueError("must not contain a user name or password")
    return url


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(f"does not name a file: {path}")
    return path


def _number(kind: Callable[[str], Any], low: float, high: float, unit: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"is not a number of {unit}: {text!r}") from None
        if not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g} {unit}")
        return value

    return parse


def _named(form: str, what: str) -> Callable[[str], Any]:
    def parse(text: str) -> str:
        if not re.fullmatch(form, text):
            raise ValueError(f"is not {what}")
        return text

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return parse


def _switch(text: str) -> bool:
    return _one_of("on", "off")(text) == "on"


def data_folder(environ: Mapping[str, str]) -> Path:
    """The user's data folder for this program (XDG Base Directory)."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))  # a function may have none and needs none
    base = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "kimi-gateway"


def _form(name: str) -> Callable[[str], Any]:
    """A function of `setting_forms`, which is loaded when it is called: few gateways set these."""

    def parse(text: str) -> Any:
        from kimi_gateway import setting_forms

        return getattr(setting_forms, name)(text)

    return parse


_seconds = _number(float, 0.01, 86_400, "seconds")
FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "MOONSHOT_API_KEY": ("moonshot_api_key", lambda text: tokens(text.split(","))),
    "KIMI_BASE_URL": ("base_url", _base_url),
    "KIMI_GATEWAY_TABLE": ("table", _named(r"[A-Za-z0-9_.-]{3,255}", "a table's name")),
    "KIMI_GATEWAY_SECRET": ("secret", _named(r"[A-Za-z0-9/_+=.@:-]{1,2048}", "a secret's name or ARN")),
    "KIMI_GATEWAY_UPLOADS": ("uploads", _named(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's name")),
    "KIMI_GATEWAY_DATA": ("data", lambda text: Path(text).expanduser()),
    "KIMI_GATEWAY_MODELS": ("models", _file),
    "KIMI_GATEWAY_SIGNUP_CREDITS": ("signup_credits", _number(int, 0, 10**9, "credits")),
    "KIMI_GATEWAY_ALIASES": ("aliases", _form("aliases")),
    "KIMI_GATEWAY_PACKAGES": ("packages", _form("packages")),
    "KIMI_GATEWAY_REGISTER": ("register", _one_of("off", "invite", "open")),
    "KIMI_GATEWAY_REGISTER_DAILY": ("register_daily", _number(int, 0, 10**6, "accounts")),
    "KIMI_GATEWAY_ACCOUNT_KEYS": ("account_keys", _number(int, 1, 1_000, "keys")),
    "KIMI_GATEWAY_PAYMENT_SECRET": ("payment_secret", _form("secrets")),
    "KIMI_GATEWAY_KEEP_USAGE": ("keep_usage", _number(int, 1, 3_650, "days")),
    "KIMI_GATEWAY_ADMIN": ("admin", _switch),
    "KIMI_GATEWAY_BODY_LIMIT": ("body_limit", _number(int, 1024, 2**30, "bytes")),
    "KIMI_GATEWAY_BODY_MEMORY": ("body_memory", _number(int, 2**20, 2**40, "bytes")),
    "KIMI_GATEWAY_ANSWER_LIMIT": ("answer_limit", _number(int, 1024, 2**32, "bytes")),
    "KIMI_GATEWAY_EVENT_LIMIT": ("event_limit", _number(int, 1024, 2**28, "bytes")),
    "KIMI_GATEWAY_CONNECT_TIMEOUT": ("connect_timeout", _seconds),
    "KIMI_GATEWAY_FIRST_BYTE_TIMEOUT": ("first_byte_timeout", _seconds),
    "KIMI_GATEWAY_IDLE_TIMEOUT": ("idle_timeout", _seconds),
    "KIMI_GATEWAY_MAX_REQUEST": ("max_request", _number(float, 0, 86_400, "seconds")),
    "KIMI_GATEWAY_LEASE": ("lease", _number(float, 1, 86_400, "seconds")),
    "KIMI_GATEWAY_TOKEN_CONCURRENCY": ("token_concurrency", _number(int, 0, 100_000, "requests")),
    "KIMI_GATEWAY_ACCOUNT_CONCURRENCY": ("account_concurrency", _number(int, 4, 100_000, "upstream calls")),
    "KIMI_GATEWAY_PASSTHROUGH": ("passthrough", _switch),
    "KIMI_GATEWAY_PASSTHROUGH_LIMITS": ("passthrough_limits", _form("windows")),
    "KIMI_GATEWAY_KEEP_CONVERSATIONS": ("keep_conversations", _switch),
    "KIMI_GATEWAY_FALLBACKS": ("fallbacks", _form("chains")),
    "KIMI_GATEWAY_KIMI_WEB": ("kimi_web", _switch),
    "KIMI_GATEWAY_UNPRICED": ("unpriced", _one_of("refuse", "allow")),
    "KIMI_GATEWAY_SEARCH": ("search", _switch),
    "KIMI_GATEWAY_SEARCH_ROUNDS": ("search_rounds", _number(int, 1, 10, "rounds")),
    "KIMI_GATEWAY_SEARCH_SECONDS": ("search_seconds", _number(float, 1, 600, "seconds")),
    "KIMI_GATEWAY_ACCOUNT_FILES": ("account_files", _number(int, 0, 500, "files")),
    "KIMI_GATEWAY_ACCOUNT_FILE_BYTES": ("account_file_bytes", _number(int, 0, 10 * 2**30, "bytes")),
    "KIMI_GATEWAY_BATCHES": ("batches", _form("batches")),
    "KIMI_GATEWAY_KEEP_TEXTS": ("keep_texts", _number(int, 0, 30 * 86_400, "seconds")),
    "KIMI_GATEWAY_FETCH_ALLOWED": ("fetch_allowed", _form("targets")),
    "KIMI_GATEWAY_ATTACHMENT_LIMIT": ("attachment_limit", _number(int, 1024, 100 * 2**20, "bytes")),
    "KIMI_GATEWAY_EXTRACT": ("extract", _one_of("provider", "local")),
    "KIMI_GATEWAY_CONNECTIONS": ("connections", _number(int, 1, 10**6, "connections")),
    "KIMI_GATEWAY_KEYLESS_PER_ADDRESS": ("keyless_per_address", _number(int, 1, 10**6, "connections")),
    "KIMI_GATEWAY_TRUSTED_PROXIES": ("trusted_proxies", _form("networks")),
    "KIMI_GATEWAY_PING_INTERVAL": ("ping_interval", _seconds),
    "KIMI_GATEWAY_DRAIN": ("drain", _number(float, 0, 900, "seconds")),
    "KIMI_GATEWAY_ANTHROPIC": ("anthropic", _one_of("pivot", "native")),
    "KIMI_GATEWAY_METRICS": ("metrics", _form("address")),
    "KIMI_GATEWAY_ALERTS_URL": ("alerts_url", _form("webhook")),
    "KIMI_GATEWAY_ALERTS_BALANCE": ("alerts_balance", _number(float, 0, 10**9, "the currency")),
    "KIMI_GATEWAY_LOG_FORMAT": ("log_format", _one_of("auto", "json", "text")),
    "KIMI_GATEWAY_LOG_LEVEL": ("log_level", _one_of("debug", "info", "warning", "error")),
}


def _instead(name: str) -> str:
    option = OPTIONS.get(name.removeprefix(PREFIX))
    if option is not None:
        return f"; use {option}"
    import difflib  # rarely needed; keeps cold starts short

    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _otlp(environ: Mapping[str, str]) -> dict[str, str]:
    """OpenTelemetry's variables; empty without an endpoint, so that nothing of it is loaded."""
    found = {name: text for name, text in environ.items() if name.startswith("OTEL_")}
    if found.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    ends = [name for name in found if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("ENDPOINT")]
    return found if any(found[name].strip() for name in ends) else {}


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ` (default: the process environment). Raises SettingsFault with all faults."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {"data": data_folder(environ)}
    if ON_LAMBDA in environ:
        values["max_request"] = LONGEST_ON_LAMBDA
        values["admin"] = False
    faults, vendors = [], dict[str, tuple[str, ...]]()
    for name, text in environ.items():
        if name in FIELDS and text.strip():
            attribute, parse = FIELDS[name]
            try:
                values[attribute] = parse(text.strip())
            except ValueError as exc:
                faults.append(f"{name} {exc}")
        elif name.startswith(OF_VENDOR) and name != OF_VENDOR:
            try:
                vendors[name.removeprefix(OF_VENDOR).lower().replace("_", "-")] = tokens(text.split(","))
            except ValueError as exc:
                faults.append(f"{name} {exc}")
        elif name.startswith(PREFIX) and name not in FIELDS:
            faults.append(f"{name} is not a setting{_instead(name)}")
    settings = Settings(**values, vendor_tokens=vendors, otlp=_otlp(environ))
    if "moonshot" in vendors:
        faults.append(f"{OF_VENDOR}MOONSHOT is not a setting; use MOONSHOT_API_KEY")
    if settings.max_request and settings.lease < settings.max_request + 60:
        faults.append("KIMI_GATEWAY_LEASE must be at least KIMI_GATEWAY_MAX_REQUEST + 60 seconds")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if (settings.table or settings.secret or settings.uploads) and not region:
        aws = "KIMI_GATEWAY_TABLE, KIMI_GATEWAY_SECRET or KIMI_GATEWAY_UPLOADS"
        faults.append(f"AWS_REGION is required if {aws} is set")
    if settings.kimi_web and (ON_LAMBDA in environ or settings.table or settings.secret):
        faults.append("KIMI_GATEWAY_KIMI_WEB is for home only, without a table and a secret")
    if faults:
        raise SettingsFault(sorted(faults))
    return settings
