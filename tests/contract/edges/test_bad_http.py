"""What is wrong before a body is read: credentials, hosts, methods, paths, heads and lengths, on a socket."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

import pytest

from support.error_shape import anthropic_error, openai_error
from support.live import HELLO, LiveGateway
from upstream import ScriptedUpstream

BODY = json.dumps({"model": "kimi-k3", "messages": HELLO}).encode()
LIMIT = 64 * 1024
CHUNKED = b"transfer-encoding: chunked"


SETTINGS = {"body_limit": LIMIT}  # of the gateway of this module


def answer_to(gateway: LiveGateway, *lines: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """The answer to these bytes; a gateway that has said enough may close before it has read them all."""
    sent = b"\r\n".join([*lines, b"connection: close", b"", body])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        with suppress(ConnectionError):
            connection.sendall(sent)
        received = b""
        while data := connection.recv(65536):
            received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(first.split(" ")[1]), headers, rest


def post(
    gateway: LiveGateway, *lines: bytes, body: bytes = BODY, path: bytes = b"/v1/chat/completions"
) -> tuple[int, dict[str, str], bytes]:
    length = b"content-length: %d" % len(body)
    return answer_to(gateway, b"POST " + path + b" HTTP/1.1", length, *lines, body=body)


def framed(gateway: LiveGateway, key: str, lines: bytes, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """A chat whose body has the length or the coding that `lines` say."""
    return answer_to(
        gateway, b"POST /v1/chat/completions HTTP/1.1", b"host: x", b"x-api-key: " + key.encode(), lines,
        body=body,
    )  # fmt: skip


def untouched(gateway: LiveGateway, upstream: ScriptedUpstream, key: str) -> None:
    """Neither charged nor counted: the next request is the first of its minute."""
    assert not upstream.requests
    assert gateway.usage(key) == []
    first = gateway.chat(key)
    assert (first.headers["x-credits-remaining"], first.headers["x-ratelimit-remaining"]) == ("99", "19")


def test_a_plain_request_of_this_kind_is_served(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    status, _, body = post(gateway, b"host: x", b"authorization: Bearer " + gateway.key().encode())
    assert status == 200
    assert json.loads(body)["choices"]


def test_a_body_without_a_content_type_is_read_as_json(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key().encode()
    for kind in ([], [b"content-type: text/plain"], [b"content-type: application/x-www-form-urlencoded"]):
        assert post(gateway, b"host: x", b"x-api-key: " + key, *kind)[0] == 200


CREDENTIALS = {
    "none": [],
    "two Authorization": [b"authorization: Bearer KEY", b"authorization: Bearer KEY"],
    "two X-API-Key": [b"x-api-key: KEY", b"x-api-key: KEY"],
    "an empty Authorization": [b"authorization:"],
    "an empty X-API-Key": [b"x-api-key:   "],
    "Bearer without a token": [b"authorization: Bearer"],
    "Bearer with blanks": [b"authorization: Bearer    "],
    "Basic": [b"authorization: Basic KEY"],
    "the key without its scheme": [b"authorization: KEY"],
    "Basic beside a right key": [b"authorization: Basic eDp5", b"x-api-key: KEY"],
    "a wrong X-API-Key beside a right Bearer": [b"authorization: Bearer KEY", b"x-api-key: sk-other"],
    "a wrong Bearer beside a right X-API-Key": [b"authorization: Bearer sk-other", b"x-api-key: KEY"],
    "two keys in one": [b"authorization: Bearer KEY, KEY"],
    "the key and a tail": [b"authorization: Bearer KEYx"],
    "bytes that are no text": [b"authorization: Bearer \xff\xfe\x80"],
    "digits of another script": [b"authorization: Bearer sk-kg-" + "٣".encode() * 38],
    "another vendor's key": [b"x-api-key: sk-ant-api03-0123456789"],
    "60,000 characters": [b"authorization: Bearer " + b"k" * 60_000],
}


@pytest.mark.parametrize("lines", CREDENTIALS.values(), ids=CREDENTIALS)
def test_bad_credentials_are_401(
    gateway: LiveGateway, upstream: ScriptedUpstream, lines: list[bytes]
) -> None:
    key = gateway.key()
    real = [line.replace(b"KEY", key.encode()) for line in lines]
    status, headers, body = post(gateway, b"host: x", *real)
    assert status == 401
    assert openai_error(json.loads(body))["code"] == "invalid_api_key"
    assert headers["www-authenticate"] == "Bearer"
    assert headers["access-control-allow-origin"] == "*"
    assert key.encode() not in body
    untouched(gateway, upstream, key)


@pytest.mark.parametrize(
    "line",
    [b"authorization: bearer  $  ", b"Authorization: BEARER $", b"X-Api-Key:  $ ", b"X-API-KEY: $"],
)
def test_case_and_blanks_around_a_credential_do_not_matter(
    gateway: LiveGateway, upstream: ScriptedUpstream, line: bytes
) -> None:
    assert post(gateway, b"host: x", line.replace(b"$", gateway.key().encode()))[0] == 200


HOSTS = {
    "two": [b"host: a.test", b"host: a.test"],
    "a blank within": [b"host: a b"],
    "a path": [b"host: a.test/x"],
    "a user": [b"host: me@a.test"],
    "a line of Chinese": ["host: 例え.test".encode()],
    "a port that is a word": [b"host: a.test:http"],
    "a port of six digits": [b"host: a.test:123456"],
    "an open bracket": [b"host: [::1"],
    "a list": [b"host: a.test, b.test"],
    "markup": [b"host: <script>"],
}


@pytest.mark.parametrize("lines", HOSTS.values(), ids=HOSTS)
def test_a_malformed_host_is_400_before_anything_else(
    gateway: LiveGateway, upstream: ScriptedUpstream, lines: list[bytes]
) -> None:
    key = gateway.key()
    status, _, body = post(gateway, *lines, b"x-api-key: " + key.encode())
    assert status == 400
    openai_error(json.loads(body))
    untouched(gateway, upstream, key)


@pytest.mark.parametrize("host", [b"evil.test", b"127.0.0.1:9", b"[::1]:8000", b"a_b", b"localhost."])
def test_a_well_formed_host_decides_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, host: bytes
) -> None:
    assert answer_to(gateway, b"GET /ping HTTP/1.1", b"host: " + host)[0] == 200


LINES = {
    "a method nobody knows": (b"BREW /v1/models HTTP/1.1", {400, 405}),
    "a method in lower case": (b"get /v1/models HTTP/1.1", {400, 405}),
    "TRACE": (b"TRACE /v1/models HTTP/1.1", {405}),
    "CONNECT": (b"CONNECT a.test:443 HTTP/1.1", {400, 404, 405}),
    "PROPFIND": (b"PROPFIND /v1/models HTTP/1.1", {405}),
    "another protocol": (b"GET /v1/models SPDY/3", {400}),
    "no line at all": (b"\x16\x03\x01\x02\x00", {400}),
    "climbing": (b"GET /v1/../../etc/passwd HTTP/1.1", {404}),
    "climbing in escapes": (b"GET /v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", {404}),
    "a NUL": (b"GET /v1/%00 HTTP/1.1", {404}),
    "a line feed": (b"GET /v1/x%0d%0aset-cookie:%20a=b HTTP/1.1", {404}),
    "half a character": (b"GET /v1/%e4%bd HTTP/1.1", {404}),
    "a bad escape": (b"GET /v1/%zz HTTP/1.1", {404}),
    "raw bytes": (b"GET /v1/\xff\xfe HTTP/1.1", {400, 404}),
    "double slashes": (b"GET //v1//models HTTP/1.1", {404}),
    "60,000 characters": (b"GET /" + b"a" * 60_000 + b" HTTP/1.1", {404}),
    "an address": (b"GET http://a.test/v1/nothing HTTP/1.1", {400, 404}),
    "a star": (b"GET * HTTP/1.1", {400, 404}),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", {400}),
}


@pytest.mark.parametrize("case", LINES)
def test_absurd_request_lines_are_refused_in_shape(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: str
) -> None:
    line, statuses = LINES[case]
    key = gateway.key()
    status, headers, body = answer_to(gateway, line, b"host: x", b"x-api-key: " + key.encode())
    assert status in statuses, body
    assert "set-cookie" not in headers
    openai_error(json.loads(body))
    untouched(gateway, upstream, key)


LENGTHS = {
    "no number": b"content-length: many",
    "negative": b"content-length: -5",
    "two that differ": b"content-length: 5\r\ncontent-length: 6",
    "beside chunked": b"content-length: 5\r\ntransfer-encoding: chunked",
    "beyond all bounds": b"content-length: 99999999999999999999999999",
    "an unknown coding": b"transfer-encoding: brotli",
}


@pytest.mark.parametrize("lines", LENGTHS.values(), ids=LENGTHS)
def test_a_contradictory_length_is_refused(
    gateway: LiveGateway, upstream: ScriptedUpstream, lines: bytes
) -> None:
    key = gateway.key()
    status, _, body = framed(gateway, key, lines, BODY)
    assert status in (400, 411, 413)
    openai_error(json.loads(body))
    untouched(gateway, upstream, key)


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/token/check"])
def test_a_body_over_the_limit_is_413_with_its_length_told(
    gateway: LiveGateway, upstream: ScriptedUpstream, path: bytes
) -> None:
    key = gateway.key()
    status, _, body = post(
        gateway, b"host: x", b"x-api-key: " + key.encode(), body=b" " * (LIMIT + 1), path=path
    )
    assert status == 413
    assert openai_error(json.loads(body))["code"] == "request_too_large"
    untouched(gateway, upstream, key)


def test_a_body_over_the_limit_is_413_in_chunks(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key()
    chunked = (b"1000\r\n" + b" " * 4096 + b"\r\n") * (LIMIT // 4096 + 1) + b"0\r\n\r\n"
    status, _, body = framed(gateway, key, CHUNKED, chunked)
    assert status == 413
    openai_error(json.loads(body))
    untouched(gateway, upstream, key)


def test_a_body_of_exactly_the_limit_is_read(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    padded = BODY[:-1] + b" " * (LIMIT - len(BODY)) + b"}"
    assert len(padded) == LIMIT
    assert post(gateway, b"host: x", b"x-api-key: " + gateway.key().encode(), body=padded)[0] == 200


def test_without_a_key_no_large_body_is_read(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    status, _, _ = post(gateway, b"host: x", body=b" " * (LIMIT + 1))
    assert status == 401


LONG = [b"x-request-id", b"x-msh-request-nonce", b"user-agent", b"cookie", b"x-stainless-lang", b"accept"]


@pytest.mark.parametrize("name", LONG, ids=[name.decode() for name in LONG])
@pytest.mark.parametrize(
    "value", [b"v" * 60_000, b"\xff\xfe\x80", b"a\tb", b""], ids=["long", "raw", "tab", "empty"]
)
def test_an_odd_header_does_no_harm(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: bytes, value: bytes
) -> None:
    key = b"x-api-key: " + gateway.key().encode()
    status, headers, _ = post(gateway, b"host: x", key, name + b": " + value)
    assert status == 200
    assert headers["x-request-id"].startswith("req_")
    assert len(upstream.chats) == 1
    assert "x-msh-request-nonce" not in upstream.chats[0].headers


def test_anthropic_paths_refuse_in_their_own_shape(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    for path in (b"/v1/messages", b"/api/v1/v1/messages", b"/anthropic/v1/nothing"):
        status, _, body = post(gateway, b"host: a b", path=path)
        assert status == 400
        assert anthropic_error(json.loads(body))["type"] == "invalid_request_error"


@pytest.mark.parametrize("lines", [
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: gzip\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked, chunked",
])  # fmt: skip
def test_a_coding_beside_chunked_is_refused(
    gateway: LiveGateway, upstream: ScriptedUpstream, lines: bytes
) -> None:
    """The bytes would be read as if they had no coding."""
    key = gateway.key()
    status, _, body = framed(gateway, key, lines, b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert status == 400
    openai_error(json.loads(body))
    untouched(gateway, upstream, key)


def test_a_body_of_very_many_tiny_chunks_is_refused(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """Each chunk costs a step, whatever its size."""
    key = gateway.key()
    few = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    assert framed(gateway, key, CHUNKED, few)[0] == 200
    upstream.requests.clear()
    key = gateway.key()
    status, _, body = framed(gateway, key, CHUNKED, b"1\r\n \r\n" * 30_000 + b"0\r\n\r\n")
    assert status == 400
    assert "tiny chunks" in openai_error(json.loads(body))["message"]
    untouched(gateway, upstream, key)
