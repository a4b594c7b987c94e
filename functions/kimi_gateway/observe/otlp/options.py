"""The options of OpenTelemetry's environment variables, as its specification says (SDK configuration and OTLP
exporter, v1.56.0): an empty variable counts as unset, and what is wrong is ignored with a warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TypeVar
from urllib.parse import unquote

from kimi_gateway.dataclass import dataclass
from kimi_gateway.setting_forms import web_address

T = TypeVar("T")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINTS = (ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
SAMPLERS = ("always_on", "always_off", "traceidratio")
DEFAULT_SAMPLER = "parentbased_always_on"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one signal goes. `timeout` in seconds for one export, with all its tries."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """`traces` or `metrics` is None if that signal is off. Times in seconds. `ratio` is of the traces that
    begin here; `by_parent`: a caller's trace is sampled as its caller says."""

    traces: Target | None = None
    metrics: Target | None = None
    resource: Mapping[str, str] = field(default_factory=dict)
    ratio: float = 1.0
    by_parent: bool = True
    propagates: bool = True
    interval: float = 60.0
    delay: float = 5.0
    queue: int = 2_048
    batch: int = 512
    warnings: tuple[str, ...] = ()


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether an endpoint is set. Without one nothing is exported, and no module is loaded."""
    return any(environ.get(name, "").strip() for name in ENDPOINTS)


def read(environ: Mapping[str, str]) -> Options:
    reader = _Reader(environ)
    if not wanted(environ) or reader.text("OTEL_SDK_DISABLED").lower() == "true":
        return Options()
    by_parent, ratio = reader.sampler()
    queue = reader.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)
    propagators = reader.text("OTEL_PROPAGATORS") or "tracecontext,baggage"
    return Options(
        traces=reader.target("TRACES"),
        metrics=reader.target("METRICS"),
        resource=reader.resource(),
        ratio=ratio,
        by_parent=by_parent,
        propagates="tracecontext" in [each.strip() for each in propagators.split(",")],
        interval=reader.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000,
        delay=reader.number("OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1000,
        queue=queue,
        batch=min(reader.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), queue),
        warnings=tuple(reader.warnings),
    )


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.warnings: list[str] = []

    def text(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def number(self, name: str, default: int) -> int:
        """A positive whole number."""
        return self._parsed(name, _positive, default)

    def target(self, signal: str) -> Target | None:
        if self.text(f"OTEL_{signal}_EXPORTER").lower() == "none":
            return None
        own = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
        url = self._parsed(own, _url, "")
        if not url and (base := self._parsed(ENDPOINT, _url, "")):
            url = f"{base.rstrip('/')}/v1/{signal.lower()}"
        if not url:
            return None
        self.of(signal, "PROTOCOL", _protocol, "http/json")
        export = {"TRACES": "OTEL_BSP_EXPORT_TIMEOUT", "METRICS": "OTEL_METRIC_EXPORT_TIMEOUT"}[signal]
        timeout = min(self.of(signal, "TIMEOUT", _positive, 10_000), self.number(export, 30_000)) / 1000
        headers = self.of(signal, "HEADERS", _pairs, dict[str, str]())
        named = {name.lower(): value for name, value in headers.items()}
        return Target(url, named, timeout, self.of(signal, "COMPRESSION", str.lower, "none") == "gzip")

    def of(self, signal: str, name: str, parse: Callable[[str], T], default: T) -> T:
        """A signal's own option, else that of all signals."""
        own = f"OTEL_EXPORTER_OTLP_{signal}_{name}"
        return self._parsed(own if self.text(own) else f"OTEL_EXPORTER_OTLP_{name}", parse, default)

    def sampler(self) -> tuple[bool, float]:
        name = self.text("OTEL_TRACES_SAMPLER").lower() or DEFAULT_SAMPLER
        kind = name.removeprefix("parentbased_")
        if kind not in SAMPLERS:
            self.warnings.append("OTEL_TRACES_SAMPLER is not a sampler of the specification")
            name, kind = DEFAULT_SAMPLER, "always_on"
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind)
        if ratio is None:
            ratio = self._parsed("OTEL_TRACES_SAMPLER_ARG", _ratio, 1.0)
        return name.startswith("parentbased_"), ratio

    def resource(self) -> dict[str, str]:
        given = self._parsed("OTEL_RESOURCE_ATTRIBUTES", _pairs, dict[str, str]())
        name = self.text("OTEL_SERVICE_NAME") or given.get("service.name") or "kimi-gateway"
        return {**given, "service.name": name}

    def _parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.text(name)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as exc:
            warning = f"{name} {exc}"  # without the value, which may be a secret
            if warning not in self.warnings:
                self.warnings.append(warning)
            return default


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) < 10**9:
        raise ValueError("is not a positive whole number")
    return int(text)


def _protocol(text: str) -> str:
    if text.lower() != "http/json":
        raise ValueError("is not http/json, which is sent nevertheless")
    return text


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("is not a number from 0 to 1")
    return value


def _url(text: str) -> str:
    parts = web_address(text)
    if parts is None:
        raise ValueError("is not an http(s) address")
    return text if parts.path else f"{text}/"


def _pairs(text: str) -> dict[str, str]:
    """`name=value,name=value`, the values percent-encoded. One fault makes all of it invalid."""
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        name, value = name.strip(), _unquoted(value.strip())
        if not equals or not name or not name.isascii() or not name.isprintable() or " " in name:
            raise ValueError("is not a list such as name=value,name=value")
        if not value.isprintable() or not value.isascii():
            raise ValueError("has a value that cannot be sent")
        found[name] = value
    return found


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:  # its text has a part of the value
        raise ValueError("has a value that is not UTF-8") from None
