"""kimi-gateway top: a running gateway at a glance, from its /metrics."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from kimi_gateway.cli.entry import Failed
from kimi_gateway.cli.home import Home
from kimi_gateway.cli.readings import History, Reading, bars, median, parse
from kimi_gateway.cli.selection import at_home
from kimi_gateway.cli.show import json_option, out, table

WITHIN = 5.0  # seconds for one scrape
LONGEST = 16 * 2**20  # bytes of one
QUIT = ("q", "Q", "\x03", "\x04", "")
HINT = "Start it with KIMI_GATEWAY_METRICS=127.0.0.1:9464 kimi-gateway serve, or give --url."


@click.command("top")
@click.option("--url", metavar="URL", help="Address of /metrics; by default that of the server at home.")
@click.option(
    "--every",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between readings.",
)
@click.option("--once", is_flag=True, help="Print one table after two readings, for scripts.")
@json_option
def top(url: str | None, every: float, once: bool, as_json: bool) -> None:
    """Show streams, tokens a second, upstream tokens, refusals and spending of a running gateway.

    Press q to quit. It reads /metrics, so the gateway needs KIMI_GATEWAY_METRICS.
    """
    address = url or _address()
    history = History()
    history.readings.append(_read(address))
    if once or as_json or not sys.stdout.isatty():
        time.sleep(every)
        history.readings.append(_read(address))
        out(as_json, document(history), "\n".join(screen(history, address)))
        return
    with _terminal():
        _watch(history, address, every)


def _address() -> str:
    values = at_home("top reads the metrics of a gateway at home")
    serving = Home(values).serving()
    if serving is not None and serving.metrics:
        return serving.metrics
    if values.metrics is not None and values.metrics[1]:
        host, port = values.metrics
        return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
    raise Failed(f"No running gateway with metrics was found. {HINT}", "no_metrics")


def _read(address: str) -> Reading:
    """Raises Failed."""
    if not address.startswith(("http://", "https://")):
        raise Failed("--url is not an http(s) address.", "usage", 2)
    import urllib.request  # takes longer than most commands

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=WITHIN) as answer:
            return parse(answer.read(LONGEST).decode("utf-8", "replace"), time.monotonic())
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise Failed(f"{address} cannot be read: {reason}. {HINT}", "no_metrics") from None


def _watch(history: History, address: str, every: float) -> None:
    """Draw until a key ends it. The size of the terminal is asked each time."""
    trouble = ""
    while True:
        size = os.get_terminal_size(sys.stdout.fileno())  # COLUMNS would not follow a new size
        lines = screen(history, address, size.columns)
        if trouble:
            lines[1:1] = [trouble]
        shown = [line[: size.columns] for line in lines[: size.lines - 1]]
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
        sys.stdout.flush()
        if select.select([sys.stdin], [], [], every)[0]:
            if os.read(sys.stdin.fileno(), 1).decode("latin-1") in QUIT:
                return
            continue
        try:
            history.readings.append(_read(address))
            trouble = ""
        except Failed as exc:
            trouble = exc.message


@contextmanager
def _terminal() -> Iterator[None]:
    """The other screen without a cursor, keys without Enter; all as before at the end."""
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle) if sys.stdin.isatty() else None
    try:
        if before is not None:
            tty.setcbreak(handle)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
        with suppress(KeyboardInterrupt):
            yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(handle, termios.TCSADRAIN, before)


def document(history: History) -> dict[str, Any]:
    """The numbers of the screen; rates are a second, over the last readings."""
    last, first = history.last, history.readings[0]
    models = sorted(last.by("admitted_total", "model"))
    up = last.by("upstream_token_up", "token")
    outages = {token: sorted(last.by("upstream_token_out", "cause", token=token)) for token in up}
    serving = last.by("upstream_token_requests", "token")
    return {
        "workers": last.sum("workers"),
        "running": last.sum("requests_running"),
        "requests": history.rate("requests_total"),
        "pieces": history.rate("chunk_interval_seconds_count"),
        "first_content": median(last, first, "first_content_seconds"),
        "memory": last.sum("process_resident_bytes"),
        "balance": last.sum("upstream_balance") if "upstream_balance" in last.values else None,
        "models": [
            {
                "model": model,
                "requests": history.rate("admitted_total", model=model),
                "input": history.rate("tokens_total", model=model, kind="input"),
                "output": history.rate("tokens_total", model=model, kind="output"),
                "usd": last.sum("cost_usd_total", model=model),
                "cny": last.sum("cost_cny_total", model=model),
            }
            for model in models
        ],
        "tokens": [
            {
                "token": token,
                "up": bool(up[token]),
                "running": serving.get(token, 0),
                "outages": outages[token],
            }
            for token in sorted(up)
        ],
        "refusals": last.by("refusals_total", "cause"),
        "failures": last.by("failures_total", "cause"),
        "alerts": sorted(last.by("alert_active", "alert")),
    }


def screen(history: History, address: str, width: int = 80) -> list[str]:
    shown, last = document(history), history.last
    flow = history.course("chunk_interval_seconds_count")
    first = shown["first_content"]
    memory = f"{shown['memory'] / 2**20:,.0f} MiB"
    number = f"{shown['workers']:.0f}"
    lines = [
        f"Kimi Gateway  {address}  {number} worker{'' if number == '1' else 's'}  {memory}  q quits",
        "",
        f"running    {shown['running']:>9.0f}    {bars(history.levels('requests_running'), width - 30)}",
        f"pieces/s   {shown['pieces']:>9.1f}    {bars(flow, width - 30)}",
        f"requests/s {shown['requests']:>9.1f}    first content {'-' if first is None else f'≤ {first:g} s'}",
        "",
    ]
    rows: list[list[object]] = [
        [each["model"], *(f"{each[name]:.1f}" for name in ("requests", "input", "output")), _money(each)]
        for each in shown["models"]
    ]
    lines += table(("MODEL", "REQUESTS/S", "INPUT/S", "OUTPUT/S", "COST"), rows).split("\n")
    balance = "" if shown["balance"] is None else f"  balance {shown['balance']:.2f}"
    lines += ["", f"Upstream tokens{balance}"]
    rows = [
        [each["token"], "up" if each["up"] else "down", int(each["running"]), ", ".join(each["outages"])]
        for each in shown["tokens"]
    ]
    lines += table(("TOKEN", "STATE", "RUNNING", "OUTAGES"), rows).split("\n")
    before = history.readings[0]
    rows = [
        [cause, kind, int(count), f"{count - before.by(name, 'cause').get(cause, 0):+.0f}"]
        for kind, name in (("refused", "refusals_total"), ("failed", "failures_total"))
        for cause, count in sorted(last.by(name, "cause").items())
    ]
    lines += ["", *table(("CAUSE", "KIND", "ALL", "LATELY"), rows).split("\n")]
    if shown["alerts"]:
        lines += ["", f"Alerts: {', '.join(shown['alerts'])}"]
    return [_printable(line) for line in lines]


def _printable(line: str) -> str:
    """The line without characters that could move the cursor."""
    return "".join([char if char.isprintable() else "?" for char in line])


def _money(model: dict[str, Any]) -> str:
    parts = [f"{model[name]:.4f} {name.upper()}" for name in ("usd", "cny") if model[name]]
    return " + ".join(parts) or "0"
