"""The runtime outside of this project, as docs/lambda-runtime.md says: a folder, a handler, a short file."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from support import ROOT
from support.runtime_api import RuntimeApi, Worker

RUNTIME = ROOT / "functions" / "kimi_gateway" / "edge" / "aws" / "lambda_runtime"
PAGE = ROOT / "docs" / "lambda-runtime.md"


def block(kind: str) -> str:
    (code,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return str(code)


def test_the_pages_handler_streams_on_a_copy_of_the_folder(tmp_path: Path) -> None:
    shutil.copytree(RUNTIME, tmp_path / "lambda_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "app.py").write_text(block("py"), "utf-8")
    wrapper = tmp_path / "stream"
    wrapper.write_text(block("bash"), "utf-8")
    wrapper.chmod(0o755)
    command = (str(wrapper), sys.executable, "/var/runtime/bootstrap.py")
    environ = {"LAMBDA_TASK_ROOT": str(tmp_path)}
    with RuntimeApi() as api, Worker(api, "app.handler", tmp_path / "log", (), command, **environ) as worker:
        posted = worker.invoke({})
        assert posted.prelude == {"statusCode": 200, "headers": {"content-type": "text/event-stream"}}
        assert posted.streamed == b"".join(b"data: %d\n\n" % number for number in range(10))
