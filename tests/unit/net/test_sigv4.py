"""The signer against botocore's, which is the oracle: the same request, the same headers, byte for byte."""

from __future__ import annotations

import calendar
import string
import time
from urllib.parse import parse_qs, urlsplit

from botocore.auth import S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.net.sigv4 import Credentials, Scope, presigned, signed

WORD = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
SECRET = st.text(string.ascii_letters + string.digits + "/+=", min_size=1, max_size=60)
ESCAPED = st.text(string.ascii_letters + string.digits + "-._~%/", max_size=20)
PATHS = ESCAPED.map(lambda text: "/" + text) | st.sampled_from(
    ["", "/", "//", "/a/./b", "/a/../b/", "/a//b", "/%41/%20", "/.", "/..", "/a/.", "/a/.."]
)
QUERIES = st.lists(st.tuples(ESCAPED, ESCAPED).map(lambda pair: "=".join(pair)) | ESCAPED, max_size=4).map(
    "&".join
)
HOSTS = st.sampled_from(
    ["https://dynamodb.eu-central-1.amazonaws.com", "http://127.0.0.1:8000", "https://a.test:443",
     "http://a.test:80", "http://[::1]:9"]
)  # fmt: skip
NAMES = WORD.map(lambda word: f"X-{word}") | st.sampled_from(
    ["Content-Type", "User-Agent", "Expect", "X-Amz-Target", "Host", "X-Amzn-Trace-Id"]
)
HEADERS = st.dictionaries(
    NAMES, st.text(string.printable.replace("\r", "").replace("\n", ""), max_size=20), max_size=5
).filter(lambda headers: len({name.lower() for name in headers}) == len(headers))


@given(
    access=WORD, secret=SECRET, token=st.none() | SECRET, region=WORD, service=WORD,
    method=st.sampled_from(["GET", "POST", "PUT"]), host=HOSTS, path=PATHS, query=QUERIES, headers=HEADERS,
    body=st.binary(max_size=100),
)  # fmt: skip
def test_a_request_is_signed_as_botocore_signs_it(
    access: str, secret: str, token: str | None, region: str, service: str, method: str, host: str,
    path: str, query: str, headers: dict[str, str], body: bytes,
) -> None:  # fmt: skip
    url = host + path + ("?" + query if query else "")
    theirs = AWSRequest(method, url, headers=dict(headers), data=body)
    SigV4Auth(BotoCredentials(access, secret, token), service, region).add_auth(theirs)
    now = calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    ours = signed(Credentials(access, secret, token), Scope(region, service), method, url, headers, body, now)
    assert ours == dict(theirs.headers.items())


@given(
    access=WORD, secret=SECRET, token=st.none() | SECRET, region=WORD, method=st.sampled_from(["GET", "PUT"]),
    host=HOSTS, path=st.text(string.ascii_letters + string.digits + "-._/", max_size=20),
    size=st.none() | st.integers(1, 10**9), seconds=st.integers(1, 3_600),
)  # fmt: skip
def test_a_url_is_signed_as_botocore_signs_it(
    access: str, secret: str, token: str | None, region: str, method: str, host: str, path: str,
    size: int | None, seconds: int,
) -> None:  # fmt: skip
    url = f"{host}/{path}"
    headers = {} if size is None else {"content-length": str(size)}
    theirs = AWSRequest(method, url, headers=dict(headers))
    S3SigV4QueryAuth(BotoCredentials(access, secret, token), "s3", region, seconds).add_auth(theirs)
    told = parse_qs(urlsplit(theirs.url).query)
    now = calendar.timegm(time.strptime(told["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ"))
    scope = Scope(region, "s3")
    ours = presigned(Credentials(access, secret, token), scope, method, url, headers, seconds, now)
    assert parse_qs(urlsplit(ours).query) == told
    assert ours.partition("?")[0] == theirs.url.partition("?")[0]


def test_credentials_do_not_show_themselves() -> None:
    shown = repr(Credentials("AKIDEXAMPLE", "secret-of-the-key", "token-of-the-session"))
    assert shown == "Credentials()"
