"""The guarded fetcher on real sockets: what it refuses, where it connects, and what it bounds."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from kimi_gateway.net.fetch.fetcher import NOT_FETCHED, Bounds, Fetcher, FetchFailed
from support.fetching import HI, Names, fetching, plain, port_of, served
from support.hostile_urls import PRIVATE_4, SPELLINGS
from support.raw_server import RawServer

pytestmark = pytest.mark.anyio

BOUNDS = Bounds(size=2**20, seconds=20)


def moved(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


async def test_no_hostile_url_reaches_a_canary() -> None:
    names = Names(localhost=[["127.0.0.1", "::1"]], good_example=[["93.184.216.34", "127.0.0.1"]])
    async with RawServer([HI]) as canary:
        port = port_of(canary)
        async with fetching(plain(ports=frozenset({port}), resolver=names)) as fetcher:
            for url in [
                *SPELLINGS,
                *(f"http://{host}:PORT/" for host in PRIVATE_4 if host.startswith("127.")),
            ]:
                with pytest.raises(FetchFailed) as refused:
                    await fetcher.fetch(url.replace("PORT", str(port)), Bounds(size=10, seconds=5))
                assert str(refused.value).startswith("The address could not be fetched. "), url
        assert canary.accepted == 0


async def test_every_address_of_a_name_must_be_public() -> None:
    names = Names(mixed_example=[["8.8.8.8", "2606:4700::1", "10.0.0.1"]], empty_example=[[]])
    async with fetching(plain(resolver=names)) as fetcher:
        for host, cause in (
            ("mixed.example", "refused"),
            ("empty.example", "unresolved"),
            ("no.example", "unresolved"),
        ):
            with pytest.raises(FetchFailed) as refused:
                await fetcher.fetch(f"http://{host}/", BOUNDS)
            assert (refused.value.cause, str(refused.value)) == (cause, NOT_FETCHED)


async def test_the_connection_goes_to_the_judged_address_with_the_names_host() -> None:
    """A name that changes its address between two questions cannot: it is asked once."""
    seen: list[tuple[str, str, str]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.url.host, request.headers["host"], str(request.extensions["sni_hostname"])))
        return httpx2.Response(200, stream=httpx2.ByteStream(b"x"))

    names = Names(rebinding_example=[["8.8.8.8"], ["127.0.0.1"]], six_example=[["2606:4700::1111"]])
    async with fetching(plain(resolver=names, transport=httpx2.MockTransport(answer))) as fetcher:
        await fetcher.fetch("https://rebinding.example/a?b=c", BOUNDS)
        await fetcher.fetch("http://six.example/", BOUNDS)
        with pytest.raises(FetchFailed):
            await fetcher.fetch("https://rebinding.example/", BOUNDS)
    assert names.asked == ["rebinding.example", "six.example", "rebinding.example"]
    assert seen == [
        ("8.8.8.8", "rebinding.example", "rebinding.example"),
        ("2606:4700::1111", "six.example", "six.example"),
    ]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=files.example"
    subprocess.run(
        [
            *command.split(),
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-addext",
            "subjectAltName=DNS:files.example",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"


async def test_the_certificate_must_be_the_names(certificate: Path) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, certificate.with_name("key.pem"))
    trusting = ssl.create_default_context(cafile=str(certificate))
    names = Names(files_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    async with RawServer([HI], tls=server_side) as server:
        port = port_of(server)
        allowed = [f"files.example:{port}", f"other.example:{port}"]
        async with fetching(Fetcher(allowed, resolver=names, tls=trusting)) as fetcher:
            assert await fetcher.fetch(f"https://files.example:{port}/", BOUNDS) == ("text/plain", b"hi")
            with pytest.raises(FetchFailed, match=NOT_FETCHED):
                await fetcher.fetch(f"https://other.example:{port}/", BOUNDS)


async def test_nothing_of_the_client_or_an_earlier_answer_is_sent() -> None:
    names = Names(a_example=[["127.0.0.1"]])
    cookie = HI.replace(b"content-type", b"set-cookie: a=b\r\ncontent-type")
    async with RawServer([cookie], [HI]) as server:
        port = port_of(server)
        async with fetching(plain([f"a.example:{port}"], resolver=names)) as fetcher:
            for _ in range(2):
                await fetcher.fetch(f"http://a.example:{port}/path?q=ü", BOUNDS)
        for _, request in server.requests:
            lines = request.decode().lower().split("\r\n")
            assert lines[0] == "get /path?q=%c3%bc http/1.1"
            sent = {line.partition(":")[0] for line in lines[1:] if line}
            assert sent == {"host", "accept", "accept-encoding", "user-agent", "connection"}


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:PORT/", "//127.0.0.1:PORT/", "http://[::1]:PORT/", "http://localhost:PORT/",
        "http://2130706433:PORT/", "file:///etc/passwd", "http://user@b.example/", "", "http://[",
        "\\\\127.0.0.1", "http://169.254.169.254/latest/meta-data/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("hop", range(3))
async def test_each_redirect_is_judged_afresh(location: str, hop: int) -> None:
    names = Names(a_example=[["127.0.0.1"]], localhost=[["127.0.0.1"]])
    async with RawServer([HI]) as canary, RawServer([HI]) as server:
        port, target = port_of(server), location.replace("PORT", str(port_of(canary)))
        server.connections = [[moved(f"/{number}")] for number in range(hop)] + [[moved(target)]]
        async with fetching(
            plain([f"a.example:{port}"], ports=frozenset({port_of(canary)}), resolver=names)
        ) as fetcher:
            with pytest.raises(FetchFailed, match=NOT_FETCHED):
                await fetcher.fetch(f"http://a.example:{port}/", Bounds(size=10, seconds=5))
        assert (canary.accepted, server.accepted) == (0, hop + 1)


async def test_five_redirects_are_followed_and_no_sixth() -> None:
    names = Names(a_example=[["127.0.0.1"]])
    for redirects, connections in ((5, 6), (6, 6)):
        async with RawServer(*[[moved(f"/{number}")] for number in range(redirects)], [HI]) as server:
            port = port_of(server)
            async with fetching(plain([f"a.example:{port}"], resolver=names)) as fetcher:
                if redirects == 5:
                    assert (await fetcher.fetch(f"http://a.example:{port}/", BOUNDS))[1] == b"hi"
                else:
                    with pytest.raises(FetchFailed) as refused:
                        await fetcher.fetch(f"http://a.example:{port}/", BOUNDS)
                    assert refused.value.cause == "redirects"
            assert server.accepted == connections


async def test_a_body_above_its_size_ends_the_connection() -> None:
    for head in (b"content-length: 9999999999999999999\r\n", b"content-length: 5000000\r\n", b""):
        async with served(*[b"x" * 65536] * 80, head=head) as (fetcher, url, server):
            with pytest.raises(FetchFailed) as refused:
                await fetcher.fetch(url, Bounds(size=100_000))
            assert refused.value.cause == "size"
            assert "100000 bytes" in str(refused.value)
            assert server.accepted == 1


async def test_a_bomb_is_cut_by_its_ratio() -> None:
    bomb = gzip.compress(bytes(30_000_000))
    async with served(bomb, head=b"content-encoding: gzip\r\n") as (fetcher, url, _):
        given: list[int] = []

        async def reading() -> None:
            async with fetcher.open(url, Bounds(size=2**30)) as fetched:
                async for chunk in fetched.chunks:
                    given.append(len(chunk))

        with pytest.raises(FetchFailed) as refused:
            await reading()
        assert refused.value.cause == "ratio"
        assert 0 < sum(given) <= 100 * len(bomb)


@pytest.mark.parametrize("coding", [b"br", b"gzip, gzip", b"zstd"])
async def test_other_codings_are_refused(coding: bytes) -> None:
    async with served(b"xx", head=b"content-encoding: " + coding + b"\r\n") as (fetcher, url, _):
        with pytest.raises(FetchFailed, match=NOT_FETCHED):
            await fetcher.fetch(url, BOUNDS)


async def test_gzip_that_nobody_asked_for_is_read() -> None:
    async with served(gzip.compress(b"hello"), head=b"content-encoding: gzip\r\n") as (fetcher, url, _):
        assert (await fetcher.fetch(url, BOUNDS))[1] == b"hello"


async def test_a_slow_drip_is_ended_and_a_slow_reader_is_not() -> None:
    async with served(*[b"x"] * 3, RawServer.KEEP, head=b"", rate=(1024, 0.2)) as (fetcher, url, server):
        server.connections[0].append(RawServer.KEEP)
        with pytest.raises(FetchFailed) as refused:
            await fetcher.fetch(url, BOUNDS)
        assert refused.value.cause == "rate"
    # All of it lies in the socket while the reader is slow, so each read after the pause is quick.
    async with served(*[b"y" * 4096] * 8, rate=(1024, 1.0)) as (fetcher, url, _):
        read_so_far = 0
        async with fetcher.open(url, BOUNDS) as fetched:
            async for chunk in fetched.chunks:
                await asyncio.sleep(0 if read_so_far else 1.5)
                read_so_far += len(chunk)
        assert read_so_far == 8 * 4096


async def test_silence_ends_with_the_time_of_the_whole_fetch() -> None:
    names = Names(a_example=[["127.0.0.1"]])
    async with RawServer([RawServer.KEEP]) as server:
        port = port_of(server)
        async with fetching(plain([f"a.example:{port}"], resolver=names)) as fetcher:
            with pytest.raises(FetchFailed) as refused:
                await fetcher.fetch(f"http://a.example:{port}/", Bounds(size=10, seconds=0.2))
        assert (refused.value.cause, str(refused.value)) == ("timeout", NOT_FETCHED)
        await server.left()


async def test_a_timeout_of_the_reader_is_its_own() -> None:
    async with served(b"hi") as (fetcher, url, _):
        with pytest.raises(TimeoutError):
            async with fetcher.open(url, BOUNDS):
                raise TimeoutError


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 No\r\ncontent-length: 6\r\n\r\nsecret", b"HTTP/1.1 204 No\r\n\r\n", b"junk\r\n\r\n", b""],
)
async def test_a_failed_answer_is_reported_without_its_body(answer: bytes) -> None:
    names = Names(a_example=[["127.0.0.1"]])
    async with RawServer([answer]) as server:
        port = port_of(server)
        async with fetching(plain([f"a.example:{port}"], resolver=names)) as fetcher:
            with pytest.raises(FetchFailed) as refused:
                await fetcher.fetch(f"http://a.example:{port}/", BOUNDS)
        status = answer[9:12].decode()
        told = f"It answered with the status {status}." if status.isdigit() else NOT_FETCHED
        assert str(refused.value).endswith(told)
        assert "secret" not in str(refused.value) + refused.value.cause


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a.example:8080/", "The address names a port other than 80 and 443."),
        ("http://me@a.example/", "The address has a user name."),
        ("http://a.example/a b", "The address has blanks, control characters or backslashes."),
    ],
)
async def test_what_the_address_itself_shows_is_said(url: str, reason: str) -> None:
    async with fetching(plain()) as fetcher:
        with pytest.raises(FetchFailed) as refused:
            await fetcher.fetch(url, BOUNDS)
    assert (refused.value.cause, str(refused.value)) == (
        "refused",
        f"The address could not be fetched. {reason}",
    )


async def test_fetches_at_once_are_bounded() -> None:
    running = most = 0

    async def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return httpx2.Response(200, stream=httpx2.ByteStream(b"x"))

    names = Names(a_example=[["8.8.8.8"]])
    async with fetching(plain(resolver=names, at_once=3, transport=httpx2.MockTransport(answer))) as fetcher:
        await asyncio.gather(*[fetcher.fetch("http://a.example/", BOUNDS) for _ in range(20)])
    assert most == 3


async def test_behind_a_proxy_addresses_are_judged_and_pinned_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(a_example=[["8.8.8.8"]], inside_example=[["10.0.0.1"]])
    async with RawServer([HI]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        async with fetching(plain(resolver=names)) as fetcher:
            assert (await fetcher.fetch("http://a.example/x", BOUNDS))[1] == b"hi"
            with pytest.raises(FetchFailed):
                await fetcher.fetch("http://inside.example/x", BOUNDS)
        (request,) = [request for _, request in proxy.requests]
        assert request.startswith(b"GET http://8.8.8.8:80/x HTTP/1.1\r\n") or request.startswith(
            b"GET http://8.8.8.8/x "
        )
        assert b"\r\nhost: a.example\r\n" in request.lower()


async def test_the_systems_resolver_knows_loopback() -> None:
    async with fetching(plain()) as fetcher:
        with pytest.raises(FetchFailed) as refused:
            await fetcher.fetch("http://localhost/", BOUNDS)
    assert refused.value.cause == "refused"


async def test_a_large_body_in_small_pieces_arrives_whole_over_an_address_that_is_asked_for_once() -> None:
    pieces = [bytes([at % 251]) * 50_000 for at in range(60)]
    for head in (b"content-length: 3000000\r\n", b""):
        async with served(*pieces, head=head) as (fetcher, url, server):
            fetcher._resolve = Names(a_example=[["127.0.0.1"], ["127.0.0.2"]])
            assert (await fetcher.fetch(url, Bounds(size=3_000_000, seconds=20)))[1] == b"".join(pieces)
        assert server.accepted == 1


async def test_httpx2_is_loaded_for_a_proxy_only() -> None:
    script = (
        "import asyncio, sys; from kimi_gateway.net.fetch.fetcher import Bounds, Fetcher, FetchFailed\n"
        "async def main():\n"
        "    try: await Fetcher(['127.0.0.1:9']).fetch('http://127.0.0.1:9/', Bounds(9, 5))\n"
        "    except FetchFailed: print('httpx2' in sys.modules)\n"
        "asyncio.run(main())"
    )
    for proxy, loaded in (("", b"False"), ("http://127.0.0.1:9", b"True")):
        environment = {"PATH": "", "HTTP_PROXY": proxy} if proxy else {"PATH": ""}
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert (await run.communicate())[0].strip() == loaded
