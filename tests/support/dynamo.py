"""DynamoDB as the tests have it: moto behind one lock, dynalite, and tables of the gateway's shape on either.

moto's updates are not atomic across threads, hence the lock. dynalite gives no item with a failed condition.
Neither proves what AWS does.
"""

from __future__ import annotations

import io
import itertools
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kimi_gateway.net.aws import DYNAMODB, Aws, Patience, Service
from kimi_gateway.net.http import Client, Timeouts
from kimi_gateway.net.sigv4 import Credentials
from support import npm

HERE = Path(__file__).with_name("dynalite")
REGION = "eu-central-1"
FAKE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMIexampleKEY")
UNHURRIED = Patience(total=60, each=Timeouts(30, 30))  # a busy machine is not a fault
KEYS = {
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "S"},
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
}
_numbers = itertools.count()


def aws(url: str, client: Client, patience: Patience = UNHURRIED, **more: Any) -> Aws:
    def endpoint(service: Service) -> str:
        return url

    return Aws(client, REGION, lambda: FAKE, endpoint, patience, **more)


async def new_table(aws: Aws) -> str:
    """One of its own for a test. The template's has these keys, too, and more that no emulator needs."""
    name = f"gateway-{next(_numbers)}"
    await aws.call(DYNAMODB, "CreateTable", {"TableName": name, "BillingMode": "PAY_PER_REQUEST", **KEYS})
    while True:
        told = await aws.call(DYNAMODB, "DescribeTable", {"TableName": name})
        if told["Table"]["TableStatus"] == "ACTIVE":
            return name


@contextmanager
def moto() -> Iterator[str]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    from support import moto_mended

    moto_mended.mend()
    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    class Handler(WSGIRequestHandler):
        """Connections are kept. werkzeug's own closes them, since an application may leave a body unread."""

        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one write
        disable_nagle_algorithm = True

        def run_wsgi(self) -> None:
            if self.headers.get("expect", "").lower() == "100-continue":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.wfile.flush()
            environ, begun = self.make_environ(), dict[str, Any]()
            ends = environ.get("wsgi.input_terminated")  # chunks, whose length nobody says
            body = environ["wsgi.input"].read(-1 if ends else int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)

            def start(status: str, headers: list[tuple[str, str]], *failed: Any) -> None:
                begun.update(status=status, headers=headers)

            with lock:
                answer = b"".join(app(environ, start))  # type: ignore[arg-type]
            self.send_response_only(int(begun["status"][:3]), begun["status"][4:])
            bare = self.command == "HEAD"
            for name, value in begun["headers"]:
                if bare or name.lower() != "content-length":
                    self.send_header(name, value)
            if not bare:
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if not bare:
                self.wfile.write(answer)

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def dynalite() -> Iterator[str]:
    npm.install(HERE)
    with subprocess.Popen(
        ["node", "server.js"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        process.stdin.close()


def size(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes by which DynamoDB reckons (AWS, "DynamoDB item sizes and formats"; read 2026-11)."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            digits = content.lstrip("-").rstrip("0")
            aligned = len(digits) % 2 or len(content.lstrip("-")) % 2 == 0  # pairs of decimal places
            return 1 + (len(digits) + 1) // 2 + bool(digits and not aligned) + content.startswith("-")
        case "BOOL":
            return 1
        case "SS":
            return 3 + sum(len(each.encode()) + 1 for each in content)
        case "M":
            return 3 + sum(len(name.encode()) + _size(each) + 1 for name, each in content.items())
    raise AssertionError(kind)
