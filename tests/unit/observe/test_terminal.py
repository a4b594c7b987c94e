"""Log lines for people: readable, redacted, and harmless to the terminal."""

from __future__ import annotations

import io
import json
import logging

import pytest

from kimi_gateway import observe
from kimi_gateway.observe.terminal import TerminalLines, coloured, formatter


def line(colour: bool, level: int = logging.INFO, **fields: object) -> str:
    record = logging.makeLogRecord(
        {"msg": "request", "levelno": level, "levelname": logging.getLevelName(level), "fields": fields}
    )
    return TerminalLines(colour).format(record)


def test_a_request_is_one_readable_line() -> None:
    shown = line(False, method="POST", path="/v1/messages", status=200, total_ms=12.5, model="kimi-k3")
    assert shown[8:] == " INFO    request POST /v1/messages 200 total_ms=12.5 model=kimi-k3"


def test_the_id_of_a_request_is_there_once() -> None:
    token = observe.current_request.set("req_1")
    try:
        assert line(False, id="req_1").endswith(" request request_id=req_1")
        assert line(False, id="other").endswith(" request id=other request_id=req_1")
    finally:
        observe.current_request.reset(token)


def test_values_cannot_move_the_cursor_and_secrets_are_removed() -> None:
    shown = line(
        False,
        path="/\x1b[2J\u202e",
        note="two words\r\nINFO",
        key="sk-kg-obviously-a-fake-secret",
        status=404,
    )
    assert "fake-secret" not in shown
    assert shown.isprintable()
    assert '"two words\\r\\nINFO"' in shown


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert (coloured(True), coloured(False)) == (True, False)
    assert "\x1b[31m" in line(True, logging.ERROR, status=500)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", Terminal, False),
        ("auto", io.StringIO, True),
        ("json", Terminal, True),
        ("text", io.StringIO, False),
    ],
)
def test_the_form_follows_the_stream_unless_it_is_set(
    form: str, stream: type[io.StringIO], is_json: bool
) -> None:
    root, log = logging.getLogger(), observe.log
    before = root.handlers[:], root.level, log.level, log.propagate
    out = stream()
    try:
        observe.to_stream("info", out, formatter(form, out))
        log.propagate = True
        observe.emit("started", provider="demo")
    finally:
        root.handlers[:], log.propagate = before[0], before[3]
        root.setLevel(before[1])
        log.setLevel(before[2])
    written = out.getvalue().strip()
    assert written.startswith("{") is is_json
    if is_json:
        assert json.loads(written)["provider"] == "demo"
