"""kimi-gateway top, shell completion, and the progress of long commands."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from kimi_gateway.cli.progress import counted, progress
from kimi_gateway.cli.readings import History, Reading, bars, parse
from kimi_gateway.observe.exposition import text
from kimi_gateway.observe.metrics import Metrics, merged
from support.command import PROGRAM, Cli, environment
from support.live import LiveGateway

QUICK = ("--every", "0.2")


def reading(at: float, **counts: float) -> Reading:
    metrics = Metrics()
    for cause, count in counts.items():
        metrics.add("refusals_total", (cause,), count)
    metrics.read({"workers": {(): 1.0}})
    return parse(text(merged([metrics.snapshot()])), at)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path_factory.mktemp("top"), metrics=("127.0.0.1", 0)) as gateway:
        assert gateway.chat(gateway.key()).status_code == 200
        assert gateway.chat("sk-kg-nobody").status_code == 401
        gateway.rest()
        yield gateway


def address(gateway: LiveGateway) -> str:
    assert gateway.app.scrape is not None
    return f"http://127.0.0.1:{gateway.app.scrape.port}/metrics"


def test_once_shows_models_tokens_and_refusals(cli: Cli, served: LiveGateway) -> None:
    shown = cli("top", "--url", address(served), "--once", *QUICK)
    assert shown.exit_code == 0
    assert re.search(r"^kimi-k3 +0\.0 ", shown.stdout, re.M)
    assert re.search(r"^invalid_api_key +refused +1 ", shown.stdout, re.M)
    assert "\x1b" not in shown.stdout
    document = json.loads(cli("top", "--url", address(served), "--json", *QUICK).stdout)
    assert (document["workers"], document["running"]) == (1, 0)
    assert [model["model"] for model in document["models"]] == ["kimi-k3"]
    assert document["refusals"] == {"invalid_api_key": 1}


def test_without_metrics_it_says_what_to_do(cli: Cli) -> None:
    for words in ((), ("--url", "http://127.0.0.1:9/metrics"), ("--url", "file:///etc/passwd")):
        result = cli("top", "--once", *words)
        assert result.exit_code in (1, 2)
        assert "KIMI_GATEWAY_METRICS" in result.stderr or "http(s)" in result.stderr


def test_in_a_terminal_it_draws_again_fits_a_new_size_and_ends_with_q(
    served: LiveGateway, data: Path
) -> None:
    control, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    resize(control, rows=30, columns=100)
    command = [*PROGRAM, "top", "--url", address(served), *QUICK]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment())
    try:
        shown = until(control, "", r"kimi-k3.*\x1b\[H.*kimi-k3")  # drawn twice
        assert shown.startswith("\x1b[?1049h")
        resize(control, rows=5, columns=20)
        process.send_signal(signal.SIGWINCH)
        small = until(control, "", r"\x1b\[H(?:(?!\r\n).)*(?:\r\n(?:(?!\r\n).)*){0,4}\x1b\[J$")
        last = small.rsplit("\x1b[H", 1)[1]
        lines = [re.sub(r"\x1b\[.", "", line) for line in last.split("\r\n")]
        assert len(lines) <= 5
        assert max(map(len, lines)) <= 20
        os.write(control, b"q")
        assert "\x1b[?1049l" in until(control, "", r"\x1b\[\?1049l")
        assert process.wait(20) == 0
        assert termios.tcgetattr(terminal)[3] == before[3]  # the terminal is as it was
    finally:
        process.kill()
        process.wait()
        os.close(control)
        os.close(terminal)


def resize(terminal: int, rows: int, columns: int) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def until(control: int, so_far: str, pattern: str) -> str:
    end = time.monotonic() + 30
    while not re.search(pattern, so_far, re.S):
        assert time.monotonic() < end, so_far
        if select.select([control], [], [], 1)[0]:
            so_far += os.read(control, 65_536).decode()
    return so_far


def test_rates_are_of_the_last_seconds_and_survive_a_restart() -> None:
    history = History()
    for at, count in ((0, 10), (1, 20), (20, 40), (21, 60), (22, 5)):
        history.readings.append(reading(at, limit=count))
    assert history.rate("refusals_total", over=2) == 0.0 or history.rate("refusals_total", over=2) > 0
    assert history.rate("refusals_total", over=1, cause="limit") == 5  # it began again at 0
    assert history.course("refusals_total") == [10, pytest.approx(20 / 19), 20, 5]


def test_a_foreign_page_is_refused_and_labels_are_read_as_written() -> None:
    with pytest.raises(ValueError, match="not /metrics"):
        parse("go_goroutines 7\n", 0)
    odd = 'a"b\\c\nd'
    assert reading(0, **{odd: 3}).by("refusals_total", "cause") == {odd: 3}


def test_bars_fill_to_the_highest() -> None:
    assert bars([0, 1, 2, 4], 3) == "▂▄█"
    assert bars([0, 0], 9) == "▁▁"


@pytest.mark.parametrize(
    ("shell", "words", "expected"),
    [
        ("bash", "kimi-gateway ke", "keys"),
        ("zsh", "kimi-gateway keys ro", "rotate"),
        ("fish", "kimi-gateway top --on", "--once"),
    ],
)
def test_the_shell_completes_commands_and_options(shell: str, words: str, expected: str) -> None:
    *_, last = words.split(" ")
    environ = environment() | {
        "_KIMI_GATEWAY_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": last if shell == "fish" else str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(PROGRAM, env=environ, capture_output=True, text=True, check=False)
    assert expected in re.split(r"[\n,\t]", done.stdout)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_a_terminal_and_gone_at_the_end() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with progress("things", stream) as step:
            assert list(counted("abc", step)) == ["a", "b", "c"]
    assert terminal.getvalue().startswith("\r\x1b[K1 things")
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert file.getvalue() == ""
