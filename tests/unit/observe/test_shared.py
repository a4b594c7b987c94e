"""The numbers of several workers, in files."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

from kimi_gateway.observe.metrics import Metrics, merged, since
from kimi_gateway.observe.shared import CELLS, SharedCells, folder_of, kept, sweep

FORK = multiprocessing.get_context("fork")


def count_and_die(folder: Path, times: int) -> None:
    metrics = Metrics(SharedCells(folder))
    for _ in range(times):
        metrics.add("events_total", ("one",))
    metrics.observe("store_seconds", ("admit",), 0.002)
    metrics.read({"requests_running": {(): 7.0}})
    os.kill(os.getpid(), signal.SIGKILL)


def dead_worker(folder: Path, times: int) -> None:
    process = FORK.Process(target=count_and_die, args=(folder, times))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def total(cells: SharedCells, metrics: Metrics, name: str, *labels: str) -> list[float] | None:
    return merged([metrics.snapshot(), *cells.others()])[name].get(labels)


def test_workers_add_up_and_each_sees_all(tmp_path: Path) -> None:
    first, second = SharedCells(tmp_path), SharedCells(tmp_path)
    of_first, of_second = Metrics(first), Metrics(second)
    of_first.add("events_total", ("one",), 2)
    of_second.add("events_total", ("one",), 3)
    of_second.add("events_total", ("two",))
    for metrics, up in ((of_first, 1.0), (of_second, 0.0)):
        metrics.observe("store_seconds", ("admit",), 0.002)
        metrics.read({"requests_running": {(): 4.0}, "upstream_token_up": {("t",): up}})
    for cells, metrics in ((first, of_first), (second, of_second)):
        assert total(cells, metrics, "events_total", "one") == [5]
        assert total(cells, metrics, "events_total", "two") == [1]
        assert total(cells, metrics, "requests_running") == [8]
        assert total(cells, metrics, "upstream_token_up", "t") == [0]  # out for one of them
        cell = total(cells, metrics, "store_seconds", "admit")
        assert cell is not None
        assert (sum(cell[:-1]), cell[-1]) == (2, 0.004)


def test_what_a_killed_worker_counted_stays_and_the_next_one_goes_on(tmp_path: Path) -> None:
    own = SharedCells(tmp_path)
    mine = Metrics(own)
    dead_worker(tmp_path, 3)
    assert total(own, mine, "events_total", "one") == [3]
    assert total(own, mine, "requests_running") is None  # of running workers only
    for times in (2, 4):
        dead_worker(tmp_path, times)
    assert total(own, mine, "events_total", "one") == [9]
    assert len(list(tmp_path.glob("*.values"))) == 2
    heir = Metrics(SharedCells(tmp_path))
    inherited = heir.snapshot()
    heir.add("events_total", ("one",), 3)
    heir.observe("store_seconds", ("admit",), 0.002)
    heir.read({"requests_running": {(): 1.0}})
    alone = merged([since(inherited, heir.snapshot())])  # what it sends by OTLP under a name of its own
    assert alone["events_total"]["one",] == [3]
    assert sum(alone["store_seconds"]["admit",][:-1]) == 1
    assert alone["requests_running"][()] == [1]


def test_a_value_that_is_not_given_any_more_is_gone(tmp_path: Path) -> None:
    cells = SharedCells(tmp_path)
    metrics = Metrics(cells)
    metrics.read({"upstream_token_up": {("a",): 1.0, ("b",): 1.0}})
    metrics.read({"upstream_token_up": {("b",): 0.0}})
    other = SharedCells(tmp_path)
    assert merged(list(other.others()))["upstream_token_up"] == {("b",): [0.0]}


def test_files_that_are_just_being_made_or_are_spoiled_do_no_harm(tmp_path: Path) -> None:
    cells = SharedCells(tmp_path)
    metrics = Metrics(cells)
    (tmp_path / "worker-7.values").write_bytes(b"")
    (tmp_path / "worker-8.values").write_bytes(bytes(CELLS * 8))
    unknown = json.dumps(["no_such_total", [], 0])
    beyond = json.dumps(["credits_total", [], CELLS])
    (tmp_path / "worker-8.names").write_text(f'{unknown}\n{beyond}\n["events_total", ["x')
    (tmp_path / "worker-9.values").write_bytes(bytes(CELLS * 8))
    (tmp_path / "worker-9.names").write_text("no JSON\n")
    metrics.add("credits_total", ())
    assert total(cells, metrics, "credits_total") == [1]


def test_the_folders_of_killed_servers_are_swept_and_those_in_use_stay(tmp_path: Path) -> None:
    running = SharedCells(folder_of(tmp_path, 1))
    dead_worker(folder_of(tmp_path, 2), 1)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["workers-1"]
    with kept(tmp_path):
        SharedCells(folder_of(tmp_path, os.getpid())).close()
    assert [path.name for path in tmp_path.iterdir()] == ["workers-1"]
    running.close()
