"""Our HTTP/1.1 client over TLS, with certificates made for the test."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kimi_gateway.net.http import ConnectFailed, ConnectionLost, Timeouts
from kimi_gateway.net.http1 import Http1Client
from support.idle import settle
from support.raw_server import RawServer

pytestmark = pytest.mark.anyio

TIMES = Timeouts(connect=30, first_byte=30)
HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class TlsServer(RawServer):
    host = "localhost"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For localhost, signed by itself; its key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
async def client(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Http1Client]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client = Http1Client()
    yield client
    await client.close()


async def ask(client: Http1Client, url: str, body: bytes = b"", times: Timeouts = TIMES) -> bytes:
    async with client.send("POST", url, {}, body, times) as answer:
        return await answer.read(2**30)


async def test_the_environments_certificates_hold_and_a_connection_is_kept(
    client: Http1Client, tls: ssl.SSLContext
) -> None:
    async with TlsServer([HI] * 3, tls=tls) as server:
        for _ in range(3):
            assert await ask(client, server.url) == b"hi"
        assert server.writers[0].get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert server.accepted == 1


async def test_a_certificate_nobody_vouches_for_is_a_failed_connect(tls: ssl.SSLContext) -> None:
    client = Http1Client()
    async with TlsServer([HI], tls=tls) as server:
        with pytest.raises(ConnectFailed):
            await ask(client, server.url)
        assert server.requests == []
    await client.close()


async def test_a_certificate_for_another_name_is_a_failed_connect(
    client: Http1Client, tls: ssl.SSLContext
) -> None:
    async with RawServer([HI], tls=tls) as server:
        with pytest.raises(ConnectFailed):
            await ask(client, server.url)
        assert server.requests == []


async def test_a_connection_closed_while_idle_is_replaced(client: Http1Client, tls: ssl.SSLContext) -> None:
    async with TlsServer([HI], tls=tls) as server:
        for number in range(3):
            assert await ask(client, server.url) == b"hi"
            await server.writers[number].wait_closed()
            await settle()
        assert server.accepted == 3


async def test_large_bodies_pass_both_ways(client: Http1Client, tls: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 2**14
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with TlsServer([head + body], tls=tls) as server:
        assert await ask(client, server.url, body) == body
        assert server.requests[0][1].endswith(body)


async def test_a_slow_reader_of_a_large_body_gets_it_all(client: Http1Client, tls: ssl.SSLContext) -> None:
    body = bytes(2**23)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with (
        TlsServer([head + body], tls=tls) as server,
        client.send("GET", server.url, {}, b"", TIMES) as answer,
    ):
        read = 0
        async for chunk in answer.chunks():
            read += len(chunk)
            await asyncio.sleep(0.001)
    assert read == len(body)


@pytest.mark.parametrize("answer", [b"", HI[:9], HI[:-1], CHUNKED + b"2\r\nhi\r\n"])
async def test_a_cut_answer_is_a_lost_connection(
    client: Http1Client, tls: ssl.SSLContext, answer: bytes
) -> None:
    async with TlsServer([answer], tls=tls) as server:
        with pytest.raises(ConnectionLost):
            await ask(client, server.url)


async def test_a_body_until_the_connection_closes_ends_there(
    client: Http1Client, tls: ssl.SSLContext
) -> None:
    async with TlsServer([[b"HTTP/1.1 200 OK\r\n\r\n", b"h", b"i"]], tls=tls) as server:
        assert await ask(client, server.url) == b"hi"


async def test_leaving_early_closes_the_connection_at_once(client: Http1Client, tls: ssl.SSLContext) -> None:
    async with TlsServer([HI[:-1], RawServer.KEEP], tls=tls) as server:
        async with client.send("GET", server.url, {}, b"", TIMES) as answer:
            assert await anext(answer.chunks()) == b"h"
        async with asyncio.timeout(5):
            await server.left()
