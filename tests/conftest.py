"""What all tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support import dynamo
from support.idle import Loop
from support.live import LiveGateway
from upstream import ScriptedUpstream

# Else each process compiles all tests and the package again, which takes longer than most tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("deep", deadline=None)  # a busy machine is no fault of a case
# The same cases each time: a new one that fails is found by `scripts/fuzz` and holds up no other change.
settings.register_profile("suite", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("suite")
settings.register_profile(
    "fuzz", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


# What is imported and collected stays to the end: the garbage collector need not look at it again and again.
gc.disable()


# Files that one process runs: they share what is dear to start. Others wait for what the first builds.
TOGETHER = (
    ("tests/infra/test_package.py",),
    ("tests/contract/pages/",),  # a browser
    (
        "tests/clients/",  # the SDKs, and environments of older ones
        "tests/contract/formats/test_mixed_calls.py",
        "tests/contract/formats/test_web_search.py",
        "tests/unit/dialects/messages/test_stream.py",
    ),
)


def unit(nodeid: str) -> str:
    """What one process runs, in order: a file, or files that belong together."""
    file = nodeid.partition("::")[0]
    return next((group[0] for group in TOGETHER if file.startswith(group)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long in one process begins first."""
    first = [group[0] for group in TOGETHER]
    items.sort(key=lambda item: first.index(name) if (name := unit(item.nodeid)) in first else len(first))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": Loop}


@pytest.fixture
def up() -> Iterator[ScriptedUpstream]:
    """One for a test alone."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def module_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(
    request: pytest.FixtureRequest,
    module_upstream: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveGateway]:
    """One for a module, with its `SETTINGS`: each test takes a key of its own from it."""
    settings = getattr(request.module, "SETTINGS", {})
    with LiveGateway(tmp_path_factory.mktemp("gateway"), module_upstream.url, **settings) as gateway:
        yield gateway


@pytest.fixture
def upstream(module_upstream: ScriptedUpstream) -> ScriptedUpstream:
    """The one behind `gateway`, knowing nothing of the tests before."""
    module_upstream.forget()
    module_upstream.requests.clear()
    return module_upstream


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with dynamo.moto() as url:
        yield url


@pytest.fixture(scope="session")
def dynalite_url() -> Iterator[str]:
    with dynamo.dynalite() as url:
        yield url
