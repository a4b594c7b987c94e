"""The session of one's own account: renewed without a word, once for all who wait, and never shown."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.exchange import NOT_CHARGED, ledger
from support.formats import FORMATS, Format
from support.kimi_web import with_web
from support.live import LiveGateway
from upstream.kimi_web import TEXT, UNAUTHENTICATED, Frames, WebService, framed, jwt, trailer

Json = dict[str, Any]
MODEL = "kimi-web/k2.6"


def content(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_many_first_requests_wait_for_one_renewal(own: WebService, tmp_path: Path) -> None:
    own.access_life = 400
    with with_web(own, tmp_path) as gateway:
        key = gateway.key()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: gateway.chat(key, model=MODEL), range(20)))
        assert {content(each) for each in answers} == {TEXT}
        assert own.counted["refresh"] == 1
        gateway.until(lambda: not own.chats)


def test_all_who_wait_get_the_failure_and_the_next_request_tries_again(
    own: WebService, tmp_path: Path
) -> None:
    with with_web(own, tmp_path) as gateway:
        own.dead, key = True, gateway.key()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: gateway.chat(key, model=MODEL), range(8)))
        assert {each.status_code for each in answers} == {503}
        assert "kimi-web token is refused" in answers[0].text
        own.dead = False
        assert content(gateway.chat(key, model=MODEL)) == TEXT
        gateway.until(lambda: not own.chats)


def test_the_newest_token_is_used_and_outlives_the_process(own: WebService, tmp_path: Path) -> None:
    """Each renewal makes the one before invalid here."""
    token = own.refresh_token()
    own.access_life = 60  # so near its end that each request would renew it, but for a floor
    for _ in range(3):
        with with_web(own, tmp_path, token) as gateway:
            assert content(gateway.chat(gateway.key(), model=MODEL)) == TEXT
            gateway.until(lambda: not own.chats)
    assert own.counted["refresh"] == 3
    file = tmp_path / "data" / "kimi-web.json"
    assert (file.stat().st_mode & 0o777, token in file.read_text()) == (0o600, False)


@pytest.mark.parametrize("around", ["{}", "kimi-auth={}", "a=b; kimi-auth={}; c=d"])
def test_an_access_token_is_used_as_it_is_until_its_end(own: WebService, tmp_path: Path, around: str) -> None:
    pasted = around.format(own.access_token(life=600))
    with with_web(own, tmp_path, pasted) as gateway:
        assert content(gateway.chat(gateway.key(), model=MODEL)) == TEXT
        gateway.until(lambda: not own.chats)
    assert own.counted["refresh"] == 0
    with with_web(own, tmp_path / "ended", own.access_token(life=-1)) as gateway:
        own.up.requests.clear()
        assert gateway.chat(gateway.key(), model=MODEL).status_code == 503
        assert not own.up.requests, "its end is known without a question"


EVERY = [(format, stream) for format in FORMATS.values() for stream in (True, False)]


def test_a_session_that_ended_is_renewed_before_the_answer(own: WebService, tmp_path: Path) -> None:
    with with_web(own, tmp_path) as gateway, gateway.client(gateway.key()) as client:

        def answered(format: Format, stream: bool) -> str:
            answer = client.post(format.path, json=format.asked(model=MODEL, stream=stream))
            return format.read(answer.text, stream).content

        assert answered(*EVERY[0]) == TEXT
        for count, (format, stream) in enumerate(EVERY):
            own.end_sessions()
            assert answered(format, stream) == TEXT
            own.plan(UNAUTHENTICATED)  # although the token is new
            assert answered(format, stream) == TEXT
            own.plan(Frames([trailer("unauthenticated", words="expired")]))
            assert answered(format, stream) == TEXT
            assert own.counted["refresh"] == 1 + 3 * (count + 1)
        gateway.until(lambda: not own.chats)
        assert not gateway.lines("token_out")


SAID = framed({"op": "set", "block": {"id": "text", "text": {"content": "Hel"}}})


def test_a_session_that_ends_within_the_answer_is_an_error_and_never_a_second_answer(
    own: WebService, tmp_path: Path
) -> None:
    with with_web(own, tmp_path) as gateway:
        for count, (format, stream) in enumerate(EVERY):
            key = gateway.key()
            with gateway.client(key) as client:
                own.plan(Frames([SAID, trailer("unauthenticated", words="expired")]))
                answer = client.post(format.path, json=format.asked(model=MODEL, stream=stream))
                told = format.read(answer.text, stream)
                assert (told.content, told.finishes) == ("Hel" if stream else "", [])
                assert told.error is not None
                assert ledger(gateway, key) == NOT_CHARGED
                assert len(own.asked) == 2 * count + 1
                answer = client.post(format.path, json=format.asked(model=MODEL, stream=stream))
                assert format.read(answer.text, stream).content == TEXT
        assert not gateway.lines("token_out"), "the token itself is good"
        gateway.until(lambda: not own.chats)


def check(gateway: LiveGateway, **body: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/token/check", json=body)


def test_token_check_knows_its_tokens(own: WebService, tmp_path: Path) -> None:
    with with_web(own, tmp_path) as gateway:
        for token in (
            own.refresh_token("two"),
            own.access_token("two"),
            f"kimi-auth={own.access_token('two')}",
        ):
            assert check(gateway, token=token).json() == {"live": True}
        dead = jwt("refresh", 99, time.time() + 1000)
        assert check(gateway, token=dead).json() == {"live": False}
        assert check(gateway, token="eyJ.no.token").json() == {"live": False}
        own.up.at("/api/auth/token/refresh", UNAUTHENTICATED.__class__(502, "<html>"))
        assert check(gateway, token=own.refresh_token("three")).status_code == 503


def test_tokens_are_in_no_line_and_no_answer(own: WebService, tmp_path: Path) -> None:
    token = own.refresh_token()
    with with_web(own, tmp_path, token) as gateway:
        key = gateway.key()
        content(gateway.chat(key, model=MODEL))
        newest = json.loads((tmp_path / "data" / "kimi-web.json").read_text()).popitem()[1]
        access = next(
            each.token for each in own.up.requests if each.path == "/api/user" or "Chat" in each.path
        )
        assert access
        leaky = f"bad session {access} {newest} {token}"
        own.plan(Frames([trailer("internal", words=leaky)]))
        shown = gateway.chat(key, model=MODEL).text + gateway.log.getvalue()
        for secret in (token, newest, access):
            assert secret not in shown
            assert secret[-20:] not in shown
        gateway.until(lambda: not own.chats)


def test_no_other_vendor_sees_its_token_and_it_sees_no_other(own: WebService, tmp_path: Path) -> None:
    """Whatever fails, and whoever answers instead."""
    token, other = own.refresh_token(), "sk-canary-of-another-vendor"
    chains = {"kimi-k3": (MODEL,), MODEL: ("kimi-k3",)}
    with with_web(own, tmp_path, token, vendor_tokens={"qwen": (other,)}, fallbacks=chains) as gateway:
        key = gateway.key()
        own.plan(Frames([trailer("unavailable", words="busy")]))
        assert gateway.chat(key, model=MODEL).status_code == 200
        own.up.plan(UNAUTHENTICATED, UNAUTHENTICATED, UNAUTHENTICATED)
        gateway.chat(key, model="kimi-k3")
        check(gateway, token=token)
        check(gateway, token=other)
        gateway.until(lambda: not own.chats)
    webs = ("/api/", "/apiv2")
    platform = [each for each in own.up.requests if each.path.startswith("/v1/")]
    web = [each for each in own.up.requests if each.path.startswith(webs)]
    assert platform
    assert web
    assert {each.token for each in platform} == {"sk-upstream-1"}
    assert not [each for each in web if not (each.token or "").startswith("eyJ")]


def test_a_dead_token_is_skipped_before_the_first_content(own: WebService, tmp_path: Path) -> None:
    dead = jwt("refresh", 98, time.time() + 1000)
    with with_web(own, tmp_path, dead, own.refresh_token()) as gateway:
        key = gateway.key()
        for turn in range(6):
            messages = [{"role": "user", "content": f"conversation {turn}"}]
            assert content(gateway.chat(key, model=MODEL, messages=messages)) == TEXT
        assert len([each for each in own.up.requests if each.token == dead]) <= 1
        gateway.until(lambda: not own.chats)


def test_a_check_of_a_strangers_token_is_not_remembered(own: WebService, tmp_path: Path) -> None:
    """Else strangers could push out the operator's newest tokens, and fill the memory."""
    with with_web(own, tmp_path) as gateway:
        content(gateway.chat(gateway.key(), model=MODEL))
        before = (tmp_path / "data" / "kimi-web.json").read_text()
        for owner in ("two", "three"):
            assert check(gateway, token=own.refresh_token(owner)).json() == {"live": True}
        assert (tmp_path / "data" / "kimi-web.json").read_text() == before
        gateway.until(lambda: not own.chats)


def test_a_newest_token_that_cannot_be_written_lives_in_the_process(own: WebService, tmp_path: Path) -> None:
    own.access_life = 60
    with with_web(own, tmp_path) as gateway:
        (tmp_path / "data" / "kimi-web.json").mkdir()  # nothing can be put in its place
        for _ in range(2):
            assert content(gateway.chat(gateway.key(), model=MODEL)) == TEXT
            own.end_sessions()
        assert gateway.lines("session_unsaved")
        assert own.counted["refresh"] == 2
        gateway.until(lambda: not own.chats)
