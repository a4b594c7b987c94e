"""The shape of the code, held by tests: which way imports point, who may import what, what a start loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from support import ROOT

PACKAGE = ROOT / "functions" / "kimi_gateway"
SOURCES = sorted((ROOT / "functions").rglob("*.py"))
# A library and the only files that may import it: folders end in a slash.
ONLY_IN = {
    "aws_lambda_powertools": ("edge/aws/cloudwatch.py",),
    "boto3": ("cli/stack.py",),
    "botocore": ("cli/stack.py",),
    "click": ("cli/",),
    "fastapi": ("edge/home/docs.py",),
    "httpx2": ("net/fetch/", "net/httpx_client.py"),
    "pydantic": ("catalog/",),
    "sqlite3": ("storage/sqlite/", "cli/checks.py"),
    "starlette": ("edge/home/docs.py",),
    "uvicorn": ("edge/home/server.py",),
}


@cache
def parsed(file: Path) -> list[ast.AST]:
    """Every node of a file's code."""
    return list(ast.walk(ast.parse(file.read_text("utf-8"))))


@cache
def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in parsed(file):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def modules() -> dict[str, Path]:
    files = {".".join(file.relative_to(ROOT / "functions").with_suffix("").parts): file for file in SOURCES}
    return {name.removesuffix(".__init__"): file for name, file in files.items()}


def imported_modules(name: str, file: Path, known: Collection[str]) -> set[str]:
    """The modules of ours that a file imports anywhere: at its top, in functions and for types only."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in parsed(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= (members & set(known)) or {base}
    return found & set(known) - {name}


def circles(imports: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that reach each other."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        seen, ahead = set[str](), [start]
        while ahead:
            new = imports[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[start] = seen
    return {
        frozenset(other for other in reached[one] if one in reached[other])
        for one in imports
        if one in reached[one]
    }


def test_a_circle_is_found() -> None:
    chain = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(chain) == {frozenset("bc")}


def test_no_modules_import_each_other_but_one_pair_for_types_only() -> None:
    files = modules()
    imports = {name: imported_modules(name, file, files) for name, file in files.items()}
    home = "kimi_gateway.edge.home"
    assert {f"{home}.exchange"} <= imports[f"{home}.protocol"]
    assert circles(imports) == {frozenset((f"{home}.exchange", f"{home}.protocol"))}
    loaded = run(f"import sys, {home}.exchange\nprint('{home}.protocol' in sys.modules)")
    assert loaded.strip() == "False"


def test_imports_point_down_the_path_of_a_request() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_in_its_one_place_only(library: str) -> None:
    users = [
        file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if library in imported(file)
    ]
    assert [user for user in users if not user.startswith(ONLY_IN[library])] == []


def test_the_lambda_runtime_imports_nothing_but_the_standard_library_and_itself() -> None:
    """The folder can be copied into another project as it is."""
    files = list((PACKAGE / "edge" / "aws" / "lambda_runtime").rglob("*.py"))
    foreign = {name for file in files for name in imported(file)} - sys.stdlib_module_names
    assert (len(files) > 2, foreign) == (True, set())


def test_the_core_loads_no_framework() -> None:
    loaded = run(
        "import sys, kimi_gateway.edge.routes, kimi_gateway.app, kimi_gateway.storage.sqlite.store\n"
        "print([name for name in ('fastapi', 'starlette', 'pydantic', 'boto3', 'uvicorn', 'click', 'httpx2')"
        " if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_the_home_server_loads_no_framework_until_the_docs_are_read() -> None:
    loaded = run(
        "import sys, kimi_gateway.edge.home.server\n"
        "print([name for name in ('fastapi', 'starlette', 'pydantic', 'boto3') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


HOMELY = ("sqlite3", "kimi_gateway.storage.sqlite.store")
CLOUDY = (
    "kimi_gateway.storage.dynamodb.store",
    "kimi_gateway.net.aws",
    "kimi_gateway.providers.tokens.secret",
)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [("data=Path(sys.argv[1])", HOMELY), ("table='kimi', secret='kimi', data=Path('/no/folder')", CLOUDY)],
    ids=["home", "cloud"],
)
def test_a_start_loads_the_store_of_its_own_place_only(
    settings: str, wanted: tuple[str, ...], tmp_path: Path
) -> None:
    """In the cloud nothing answers at the address, and it starts all the same."""
    loaded = run(
        "import asyncio, logging, os, sys\n"
        "from pathlib import Path\n"
        "from kimi_gateway import app\n"
        "from kimi_gateway.settings import Settings\n"
        "os.environ.update(AWS_ENDPOINT_URL='http://127.0.0.1:9', AWS_REGION='eu-central-1')\n"
        "logging.disable()\n"
        "async def start():\n"
        f"    await (await app.start(Settings({settings}))).stop()\n"
        "asyncio.run(start())\n"
        f"print(*(name for name in {(*HOMELY, *CLOUDY, 'boto3', 'botocore')} if name in sys.modules))",
        str(tmp_path / "data"),
    )
    assert tuple(loaded.split()) == wanted


LATER = (
    "kimi_gateway.endpoints.files",
    "kimi_gateway.files.resolver",
    "kimi_gateway.flow.search",
    "kimi_gateway.net.fetch",
    "kimi_gateway.providers.moonshot.files",
    "kimi_gateway.providers.moonshot.search",
    "multipart",
    "tempfile",
)
MOST_MODULES = 172  # of the gateway, before the first request


def test_the_routing_table_loads_little() -> None:
    """What few requests need is loaded by the first of them. A new endpoint belongs there too."""
    loaded = run("import sys, kimi_gateway.edge.routes, kimi_gateway.app\nprint(*sys.modules)").split()
    assert [name for name in loaded if name.startswith(LATER)] == []
    assert len([name for name in loaded if name.partition(".")[0] == "kimi_gateway"]) <= MOST_MODULES


def test_data_classes_are_made_by_the_quick_decorator() -> None:
    """The standard one costs the start half a millisecond a class."""
    ours = [file for file in PACKAGE.rglob("*.py") if "lambda_runtime" not in file.parts]
    standard = [
        file.relative_to(PACKAGE).as_posix()
        for file in ours
        for node in parsed(file)
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        if "dataclass" in {alias.name for alias in node.names}
    ]
    assert standard == ["dataclass.py"]


def test_listing_keys_does_not_load_the_server_or_the_http_client() -> None:
    loaded = run(
        "import sys, kimi_gateway.cli\n"
        "print([name for name in ('uvicorn', 'httpx2', 'fastapi', 'pydantic') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_a_command_loads_no_other_command() -> None:
    loaded = run(
        "import sys\n"
        "from kimi_gateway.cli import PLACES, main\n"
        "main.commands['serve']\n"
        "print(*(module for module, _ in PLACES.values() if f'kimi_gateway.cli.{module}' in sys.modules))"
    )
    assert loaded.split() == ["serve"]


def test_files_and_functions_stay_within_the_house_numbers() -> None:
    too_long = []
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        if "node_modules" in file.parts:  # what the tests install is not ours
            continue
        text = file.read_text("utf-8")
        if text.count("\n") > 350:
            too_long.append(file.name)
        for node in functions(ast.parse(text)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > 60:
                too_long.append(f"{file.name}:{node.name}")
    assert too_long == []


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All of them, without a look into expressions, which are most of a tree."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(tree, name, ()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node
            yield from functions(node)
