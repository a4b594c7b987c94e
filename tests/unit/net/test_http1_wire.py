"""A request of our HTTP/1.1 client as bytes, what it refuses to send, and where a proxy stands before it."""

from __future__ import annotations

import traceback
from urllib import request as oracle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway import __version__
from kimi_gateway.net.http import ConnectFailed
from kimi_gateway.net.http1 import proxied
from kimi_gateway.net.wire import head, locate

SECRET = "sk-very-secret"
URL = "https://api.moonshot.ai/v1/chat/completions"


def lines(method: str, url: str, headers: dict[str, str], length: int = 0) -> list[str]:
    text = head(method, locate(url), headers, length).decode()
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


def test_a_request_names_host_sender_encoding_and_length() -> None:
    assert lines("POST", URL + "?a=b&c=%20", {"Authorization": "Bearer x"}, 17) == [
        "POST /v1/chat/completions?a=b&c=%20 HTTP/1.1",
        "host: api.moonshot.ai",
        "Authorization: Bearer x",
        f"user-agent: kimi-gateway/{__version__}",
        "accept-encoding: identity",
        "content-length: 17",
    ]


def test_the_callers_own_host_sender_and_encoding_hold() -> None:
    own = {"Host": "signed", "User-Agent": "me", "ACCEPT-ENCODING": "gzip"}
    assert lines("GET", URL, own)[1:] == ["Host: signed", "User-Agent: me", "ACCEPT-ENCODING: gzip"]


@pytest.mark.parametrize(
    ("method", "length", "told"),
    [("GET", 0, False), ("DELETE", 0, False), ("POST", 0, True), ("GET", 1, True)],
)
def test_a_length_is_reported_where_one_is_expected(method: str, length: int, told: bool) -> None:
    assert (f"content-length: {length}" in lines(method, URL, {}, length)) is told


@pytest.mark.parametrize(
    ("url", "origin", "host", "target"),
    [
        ("http://a", ("http", "a", 80), "a", "/"),
        ("HTTPS://A.b/c#d", ("https", "a.b", 443), "a.b", "/c"),
        ("http://a:80/?b", ("http", "a", 80), "a", "/?b"),
        ("http://a:443/", ("http", "a", 443), "a:443", "/"),
        ("https://[::1]:8443/x", ("https", "::1", 8443), "[::1]:8443", "/x"),
    ],
)
def test_an_address_is_read(url: str, origin: tuple[str, str, int], host: str, target: str) -> None:
    assert locate(url) == (origin, host, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v1",
        "ftp://a/",
        "http:///a",
        "http://a:b/",
        "http://a:99999/",
        "http://[::1/",
        f"http://{SECRET}@a/",
        f"http://a/{SECRET} HTTP/1.1",
        f"http://a/\r\nx: {SECRET}",
        f"http://a/\n{SECRET}",
        f"http://a/{SECRET}\N{SNOWMAN}",
        f"http://a/\0{SECRET}",
    ],
)
def test_an_address_that_leads_nowhere_is_refused_unquoted(url: str) -> None:
    with pytest.raises(ConnectFailed) as caught:
        locate(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "headers",
    [
        {"x": f"{SECRET}\r\ny: z"},
        {"x": f"{SECRET}\n"},
        {"x": f"{SECRET}\r"},
        {"x": f"{SECRET}\0"},
        {"x": f"{SECRET}\x7f"},
        {"x": f"{SECRET}\N{SNOWMAN}"},
        {"x": f"{SECRET}é"},
        {"": SECRET},
        {"x\r\ny": SECRET},
        {"x:y": SECRET},
        {"x y": SECRET},
        {"é": SECRET},
        {"x": "y", "": SECRET},
        {"x": "y", "X": SECRET},
        {"content-length": "17"},
        {"Transfer-Encoding": "chunked"},
        {"connection": "upgrade"},
        {"upgrade": "x"},
    ],
)
def test_a_header_that_would_change_the_request_is_refused_unquoted(headers: dict[str, str]) -> None:
    with pytest.raises(ConnectFailed) as caught:
        head("POST", locate(URL), headers, 0)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("method", ["", "CONNECT", "TRACE", "get", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"])
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(ConnectFailed):
        head(method, locate(URL), {}, 0)


text = st.text(st.characters(max_codepoint=300), max_size=8)


@given(st.dictionaries(text, text, max_size=4))
def test_no_header_makes_more_of_a_request_than_its_own_line(headers: dict[str, str]) -> None:
    try:
        sent = lines("GET", "http://a/", headers)
    except ConnectFailed:
        return
    assert {f"{name}: {value}" for name, value in headers.items()} <= set(sent)
    assert all(line.isprintable() or "\t" in line for line in sent)
    assert len(sent) == 1 + len(
        {"host", "user-agent", "accept-encoding"} | {name.lower() for name in headers}
    )


PROXIED = {
    "nothing set": ({}, False),
    "for this scheme": ({"HTTPS_PROXY": "http://p"}, True),
    "in lower case": ({"https_proxy": "http://p"}, True),
    "for the other scheme": ({"HTTP_PROXY": "http://p"}, False),
    "for all schemes": ({"ALL_PROXY": "socks5://p"}, True),
    "empty": ({"HTTPS_PROXY": ""}, False),
    "taken back in lower case": ({"HTTPS_PROXY": "http://p", "https_proxy": ""}, False),
    "not for this host": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "b.test, api.moonshot.ai"}, False),
    "not for its domain": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "moonshot.ai"}, False),
    "not for its domain, with a dot": ({"HTTPS_PROXY": "http://p", "no_proxy": ".Moonshot.AI"}, False),
    "not for its port": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "api.moonshot.ai:443"}, False),
    "not for another port": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "api.moonshot.ai:444"}, True),
    "not for a name within it": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "shot.ai"}, True),
    "for no host": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}, False),
    "a list with a star": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "*,b"}, True),
    "a mask, which is not understood": ({"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, True),
    "a name without the word": ({"PROXY": "x", "HTTPS_PROXY_X": "y", "_proxy": "z"}, False),
}


@pytest.mark.parametrize(("environ", "expected"), PROXIED.values(), ids=PROXIED)
def test_a_proxy_of_the_environment_is_seen(environ: dict[str, str], expected: bool) -> None:
    assert proxied(URL, environ) is expected


@pytest.mark.parametrize(("environ", "expected"), PROXIED.values(), ids=PROXIED)
def test_the_standard_library_sees_it_the_same_way(
    environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    proxies = oracle.getproxies_environment()
    bypassed = oracle.proxy_bypass_environment("api.moonshot.ai:443", proxies)  # type: ignore[attr-defined]
    assert (("https" in proxies or "all" in proxies) and not bypassed) is expected
