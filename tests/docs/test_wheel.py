"""The package installs from a clone into an empty environment and serves there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from support import ROOT

LARGEST = 1536 * 1024  # bytes of the wheel; the page /docs is 500 KB of them, the other pages 100 KB


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
    ]
    subprocess.run([*command, ROOT], check=True, capture_output=True)
    (made,) = folder.glob("kimi_gateway-*.whl")
    return made


def test_the_wheel_holds_the_package_and_nothing_else_and_is_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        needs = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert "kimi_gateway/edge/home/swagger/swagger-ui-bundle.js" in names
    pages = "kimi_gateway/endpoints/pages/static"
    static = {
        file.relative_to(ROOT / "functions").as_posix()
        for file in (ROOT / "functions" / pages).rglob("*")
        if file.is_file()
    }
    assert {f"{pages}/{name}.html" for name in ("chat", "credits", "admin")} <= static <= set(names)
    assert all(name.startswith(("kimi_gateway/", "kimi_gateway-")) for name in names)
    assert wheel.stat().st_size < LARGEST
    required = re.findall(r"^Requires-Dist: ([a-z0-9-]+)[^;\n]*$", needs, re.M)
    assert sorted(required) == [
        "click",
        "fastapi",
        "httptools",
        "httpx2",
        "pydantic",
        "python-multipart",
        "uvicorn",
    ]


def test_it_serves_from_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", venv, "install", "--quiet", "--no-compile"]
    pip += ["--disable-pip-version-check"]
    lock = ROOT / "requirements/serve.txt"
    subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", lock], check=True, capture_output=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True, capture_output=True)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [venv / "bin/kimi-gateway", "serve", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd="/", env=environ, text=True, **pipes) as server:  # type: ignore[call-overload]
        try:
            address = server.stdout.readline().split()[-1]
            key = re.search(r"sk-kg-[0-9A-Za-z]{38}", "".join(server.stdout.readline() for _ in range(5)))
            assert key is not None
            for line in server.stderr:
                if '"started"' in line:
                    break
            with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
                _until_up(client)
                body = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
                headers = {"authorization": f"Bearer {key[0]}"}
                assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
                assert "swagger-ui" in client.get("/docs/swagger-ui.css").text
                page = client.get("/my-credits", headers={"accept": "text/html"})
                assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
    assert server.returncode == 0
    assert (tmp_path / ".local/share/kimi-gateway/gateway.sqlite3").exists()


def _until_up(client: httpx.Client) -> None:
    for _ in range(10_000):
        try:
            client.get("/ping")
            return
        except httpx.ConnectError:
            continue
    raise AssertionError("it does not answer")
