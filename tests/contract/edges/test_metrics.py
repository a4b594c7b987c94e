"""Metrics at an address of their own, read with Prometheus' own parser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kimi_gateway.cli.serving import servers
from kimi_gateway.edge.home import scrape
from kimi_gateway.edge.home.asgi import App
from kimi_gateway.observe import RequestRecord, log, sinks
from kimi_gateway.observe.exposition import text
from kimi_gateway.observe.families import FAMILIES, MOST_SERIES, PREFIX
from kimi_gateway.observe.metrics import Metrics, merged
from kimi_gateway.settings import Settings
from support import ROOT
from support.live import HELLO, LiveGateway
from support.server_process import ServerProcess
from upstream import ScriptedUpstream, Status

SETTINGS = {"metrics": ("127.0.0.1", 0)}
PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(gateway: LiveGateway, path: str = "/metrics", method: str = "GET") -> httpx.Response:
    assert gateway.app.scrape is not None
    url = f"http://127.0.0.1:{gateway.app.scrape.port}{path}"
    return httpx.request(method, url, trust_env=False, timeout=10)


def value(read: Series, name: str, **labels: str) -> float:
    return read[PREFIX + name, frozenset(labels.items())]


def test_it_counts_what_the_log_lines_say(module_upstream: ScriptedUpstream, gateway: LiveGateway) -> None:
    key, before = gateway.key(), series(scraped(gateway).text)
    for stream in (True, False):
        assert gateway.chat(key, stream=stream).status_code == 200
    assert gateway.chat("sk-kg-nobody").status_code == 401
    assert gateway.chat(key, messages=[]).status_code == 400
    module_upstream.plan(Status(400, {"error": {"message": "no", "type": "invalid_request_error"}}))
    assert gateway.chat(key).status_code == 400
    gateway.nothing_left(key)
    assert "traceparent" not in module_upstream.requests[-1].headers  # only a gateway that traces sends it
    answer = scraped(gateway)
    read = series(answer.text)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = gateway.lines("request")
    paid = [line for line in lines if line.get("outcome") == "settled"]
    route = "/v1/chat/completions"
    assert value(read, "requests_total", route=route, status="200") == 2
    assert value(read, "requests_total", route=route, status="401") == 1
    assert value(read, "admitted_total", model="kimi-k3", outcome="settled") == 2
    for kind, name in (("input", "input_tokens"), ("cached", "cached_tokens"), ("output", "output_tokens")):
        assert value(read, "tokens_total", model="kimi-k3", kind=kind) == sum(line[name] for line in paid)
    cost = sum(line["cost_usd"] for line in paid)
    assert value(read, "cost_usd_total", model="kimi-k3") == pytest.approx(cost)
    assert value(read, "credits_total") == sum(line["credits"] for line in paid)
    causes = [line["cause"] for line in lines if 400 <= line["status"] < 499]
    assert len(causes) == 3
    for cause in causes:
        assert value(read, "refusals_total", cause=cause) == causes.count(cause)
    assert value(read, "first_content_seconds_count", provider="moonshot", model="kimi-k3") == 2
    assert value(read, "request_seconds_bucket", stream="true", le="+Inf") == 1
    assert value(read, "upstream_token_up", token=paid[0]["upstream_tokens"][0]) == 1
    assert value(read, "upstream_token_requests", token=paid[0]["upstream_tokens"][0]) == 0
    assert value(read, "requests_running") == 0
    assert value(read, "workers") == 1
    for kind, name in (("input", "input_tokens"), ("output", "output_tokens")):
        of = {"provider": "moonshot", "model": "kimi-k3", "type": kind}
        assert value(read, "request_tokens_sum", **of) == sum(line[name] for line in paid)
    assert value(read, "operation_seconds_count", provider="moonshot", model="kimi-k3", error="") == 2
    failed = {"provider": "moonshot", "model": "kimi-k3", "error": causes[-1]}
    assert value(read, "operation_seconds_count", **failed) == 1
    for step in ("find_key", "admit", "settle"):
        assert value(read, "store_seconds_count", step=step) >= 1
    assert value(read, "process_resident_bytes") > 10 * 2**20
    assert (PREFIX + "credits_total", frozenset()) not in before


def test_a_dead_token_and_its_failed_attempt_show(
    module_upstream: ScriptedUpstream, gateway: LiveGateway
) -> None:
    key = gateway.key()
    module_upstream.plan(
        Status(401, {"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}})
    )
    assert gateway.chat(key).status_code >= 500
    read = series(scraped(gateway).text)
    assert value(read, "attempt_failures_total", cause="authentication") >= 1
    assert [number for (name, _), number in read.items() if name.endswith("upstream_token_up")] == [0]
    assert value(read, "events_total", event="token_out") == 1
    outages = {tuple(sorted(labels))[0] for (name, labels) in read if name.endswith("upstream_token_out")}
    assert outages == {("cause", "authentication")}


def test_tokens_of_other_vendors_show_once_they_are_used(up: ScriptedUpstream, tmp_path: Path) -> None:
    tokens = {"glm": ("obviously-a-fake-token",)}
    with LiveGateway(tmp_path, up.url, vendor_tokens=tokens, **SETTINGS) as gateway:
        for number in (1, 2):
            read = series(scraped(gateway).text)
            assert sum(name == f"{PREFIX}upstream_token_up" for name, _ in read) == number
            assert gateway.app.running is not None
            vendors = gateway.app.running.registry.vendors
            assert vendors is not None
            gateway.call(partial(list, vendors.directories()))
            gateway.rest()


def test_nothing_names_a_key_an_account_or_a_secret(gateway: LiveGateway) -> None:
    key = gateway.key()
    gateway.chat(key)
    text, account = scraped(gateway).text, gateway.account(key)
    assert [word for word in (key, account.id, "sk-", "key_", "127.0.0.1") if word in text] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 200), ("GET", "/metrics?x=1", 200)],
)
def test_it_answers_for_nothing_else(gateway: LiveGateway, method: str, path: str, status: int) -> None:
    answer = scraped(gateway, path, method)
    assert (answer.status_code, bool(answer.text)) == (status, method != "HEAD")


def test_clients_of_the_gateway_do_not_see_it(gateway: LiveGateway) -> None:
    with gateway.client(gateway.key()) as client:
        assert client.get("/metrics").status_code == 404


def test_a_flood_of_silent_connections_is_closed(
    gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones for their silence, those above the bound at once."""
    monkeypatch.setattr(scrape, "WITHIN", 0.2)
    assert gateway.app.scrape is not None
    address = "127.0.0.1", gateway.app.scrape.port
    clients = [socket.create_connection(address, timeout=10) for _ in range(scrape.MOST * 2)]
    assert [client.recv(1) for client in clients] == [b""] * len(clients)
    for client in clients:
        client.close()
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nx: " + b"x" * 3 * scrape.LONGEST_HEAD)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    monkeypatch.undo()
    assert scraped(gateway).status_code == 200


def test_the_pauses_within_an_answer_are_counted(tmp_path: Path) -> None:
    """Fewer than its pieces."""
    metrics = Metrics()
    sinks.append(metrics)
    try:
        with LiveGateway(tmp_path) as gateway:  # the demo sends a word at a time
            pieces = gateway.chat(gateway.key(), stream=True).text.count('"content"')
            gateway.rest()
    finally:
        sinks.remove(metrics)
    read = series(text(merged([metrics.snapshot()])))
    assert 0 < value(read, "chunk_interval_seconds_count") < pieces


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def command_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().decode()


def test_one_scrape_shows_all_workers_and_keeps_what_a_killed_one_counted(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, up.url, workers=2, metrics="127.0.0.1:0") as server:
        (note,) = servers(tmp_path / "data")

        def read() -> Series:
            return series(httpx.get(note.metrics, trust_env=False).text)

        def counted() -> float:
            return read().get((f"{PREFIX}requests_total", asked), 0)

        key = server.key()
        asked = frozenset({("route", "/v1/chat/completions"), ("status", "200")})
        for _ in range(12):
            assert httpx.post(
                f"{server.url}/v1/chat/completions",
                headers={"authorization": f"Bearer {key}"},
                json={"model": "kimi-k3", "messages": HELLO},
                trust_env=False,
            ).is_success
        server.until(lambda: value(read(), "workers") == 2)
        server.until(lambda: counted() == 12)  # a worker counts right after it has answered
        assert [counted() for _ in range(6)] == [12] * 6  # whichever worker answers
        workers = [each for each in children(server.process.pid) if "spawn_main" in command_of(each)]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        server.until(lambda: workers[0] not in children(server.process.pid))
        server.until(lambda: value(read(), "workers") == 2)
        assert counted() == 12
        server.terminate()
        assert server.ended() == 0
    assert list((tmp_path / "data").glob("workers-*")) == []


def test_it_ends_with_the_gateway_and_counts_at_any_log_level(tmp_path: Path) -> None:
    before = list(sinks)
    with LiveGateway(tmp_path, metrics=("127.0.0.1", 0)) as gateway:
        log.setLevel("ERROR")
        with gateway.client(gateway.key()) as client:
            assert client.get("/v1/models").status_code == 200
        gateway.rest()
        assert value(series(scraped(gateway).text), "requests_total", route="/v1/models", status="200") == 1
        assert len(sinks) == len(before) + 1
    assert sinks == before


def test_an_address_in_use_stops_the_start_and_leaves_nothing_open(tmp_path: Path) -> None:
    async def begin(metrics: tuple[str, int]) -> list[str]:
        app = App(Settings(data=tmp_path / "data", metrics=metrics))
        with pytest.raises(OSError, match="in use"):
            await app.start()
        return [str(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    before = list(sinks)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert asyncio.run(begin(taken.getsockname()[:2])) == []
    assert sinks == before


@given(st.lists(st.tuples(st.text(max_size=8), st.floats(0, 1e6)), max_size=20))
def test_any_label_is_read_back_and_histograms_add_up(requests: list[tuple[str, float]]) -> None:
    metrics = Metrics()
    for name, milliseconds in requests:
        metrics.request(
            RequestRecord(
                route=name or None, status=200, outcome="settled", upstream_model=name, total_ms=milliseconds
            )
        )
    read = series(text(merged([metrics.snapshot()])))
    for name in {name for name, _ in requests}:
        count = sum(one == name for one, _ in requests)
        assert value(read, "admitted_total", model=name or "other", outcome="settled") == count
    if requests:
        assert value(read, "request_seconds_count", stream="false") == len(requests)
        total = sum(milliseconds for _, milliseconds in requests) / 1000
        assert value(read, "request_seconds_sum", stream="false") == pytest.approx(total)
        buckets = [number for (name, _), number in read.items() if name == PREFIX + "request_seconds_bucket"]
        assert max(buckets) == len(requests)


def test_the_number_of_series_is_bounded() -> None:
    metrics = Metrics()
    for number in range(MOST_SERIES + 50):
        metrics.request(RequestRecord(route=f"/{number}", status=200))
    read = series(text(merged([metrics.snapshot()])))
    assert len(read) == MOST_SERIES + 1
    assert value(read, "requests_total", route="other", status="other") == 50


def test_the_page_and_the_dashboard_name_what_is_there() -> None:
    rows = re.findall(r"^\| `kimi_gateway_(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE, re.M)
    assert rows == [
        (name, family.kind, ", ".join(f"`{label}`" for label in family.labels) or "–", family.help)
        for name, family in FAMILIES.items()
    ]
    dashboard: dict[str, Any] = json.loads((ROOT / "docs" / "grafana.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for text in asked
        for name in re.findall(rf"{PREFIX}\w+", text)
    }
    assert named <= {PREFIX + name for name in FAMILIES}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) == 16
