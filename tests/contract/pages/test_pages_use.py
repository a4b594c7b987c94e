"""What the pages do when something is unusual: odd keys, lost answers, two operators, the keyboard, Back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kimi_gateway.accounts import keys
from support.browsing import Browser
from support.busy import Busy, busy
from support.live import LiveGateway
from support.playground import NOTHING_SEEN, Playground
from upstream import Kimi, ScriptedUpstream

EXPIRES = 1_830_000_000  # 2027-12-28, not at midnight


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    with LiveGateway(tmp_path_factory.mktemp("operator")) as gateway:
        yield busy(gateway, ("Alice",), hours=1)


@pytest.fixture(autouse=True)
def nothing_seen(browser: Browser) -> Iterator[None]:
    yield
    assert browser.run(NOTHING_SEEN) == []


def accounts(browser: Browser, desk: Busy, prepare: str = "") -> None:
    browser.run(
        """
        kept.page?.context().close();
        const page = kept.page = await tab();
        await page.addInitScript((key) => sessionStorage.setItem("kimi-gateway.key", key), args.key);
        """
        + prepare
        + 'await page.goto(args.url + "/admin#accounts"); await page.waitForSelector(".account");',
        url=desk.gateway.url,
        key=desk.boss,
    )


@pytest.mark.parametrize("path", ["/", "/my-credits", "/admin"])
def test_the_form_refuses_a_key_that_no_header_can_carry(browser: Browser, desk: Busy, path: str) -> None:
    for typed in ("密钥", "sk-kg-abc\u200b", "sk-kg-a b"):
        told = browser.run(
            """
            kept.page?.context().close();
            const page = kept.page = await tab();
            await page.goto(args.url);
            await page.fill("#key", args.key);
            await page.keyboard.press("Enter");
            return await page.textContent("[role=alert]");
            """,
            url=desk.gateway.url + path,
            key=typed,
        )
        assert "no such characters" in told


def test_the_skip_link_stays_in_its_section(browser: Browser, desk: Busy) -> None:
    accounts(browser, desk)
    url, section, focus = browser.run(
        """
        const page = kept.page;
        await page.locator(".skip").focus();
        await page.keyboard.press("Enter");
        await page.waitForFunction(() => document.activeElement.id === "main");
        return [page.url(), await page.getAttribute(".tabs [aria-current]", "href"), "main"];
        """
    )
    assert (url.partition("#")[2], section, focus) == ("accounts", "#accounts", "main")


def test_the_focus_stays_where_it_was_when_the_page_is_drawn_anew(browser: Browser, desk: Busy) -> None:
    accounts(browser, desk)
    anew = """
        const page = kept.page, card = await page.$(".account");
        const again = () => page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
        const gone = () => page.waitForFunction((old) => !old.isConnected, card);
        const name = () => page.evaluate(() => document.activeElement.getAttribute("aria-label"));
        await page.getByRole("button", { name: "Change: Alice laptop" }).focus();
    """
    assert browser.run(anew + "await again(); await gone(); return await name()") == "Change: Alice laptop"
    opened = """
        await page.keyboard.press("Enter"); await page.waitForSelector("dialog");
        await again(); await gone(); await page.keyboard.press("Escape");
        await page.waitForSelector("dialog", { state: "detached" });
        return await name();
    """
    assert browser.run(anew + opened) == "Change: Alice laptop"


def test_a_change_leaves_what_was_not_changed(browser: Browser, desk: Busy) -> None:
    """An end within a day stays, and so does what another operator changed meanwhile."""
    store, now, digest = desk.gateway.store, int(time.time()), keys.digest(desk.user)
    desk.gateway.do(store.update_key(digest, lambda old: replace(old, expires=EXPIRES), now))
    accounts(browser, desk)
    browser.run(
        'await kept.page.getByRole("button", { name: "Change: Alice laptop" }).click();'
        'await kept.page.waitForSelector("dialog")'
    )
    desk.gateway.do(store.update_key(digest, lambda old: replace(old, tokens=77), now))
    browser.run(
        """
        await kept.page.fill("#f-note", "of the kitchen");
        await kept.page.keyboard.press("Enter");
        await kept.page.waitForSelector("dialog", { state: "detached" });
        """
    )
    found = desk.gateway.do(store.find_key(digest))
    assert (found.note, found.tokens, found.expires) == ("of the kitchen", 77, EXPIRES)


def test_a_change_without_an_answer_may_have_been_done(browser: Browser, desk: Busy) -> None:
    accounts(browser, desk)
    told = browser.run(
        """
        const page = kept.page;
        await page.route("**/grant", async (route) => { await route.fetch(); await route.abort(); });
        await page.getByRole("button", { name: "Grant credits: Alice", exact: true }).click();
        await page.fill("#f-credits", "5");
        await page.keyboard.press("Enter");
        return await page.textContent("dialog [role=alert]");
        """
    )
    assert "it may have been done" in told


def test_accounts_that_are_not_read_are_told_of(browser: Browser, desk: Busy) -> None:
    more = """
        await page.route("**/admin/accounts?*", async (route) => {
          const answer = await (await route.fetch({ url: args.url + "/admin/accounts?limit=1000" })).json();
          await route.fulfill({ json: { ...answer, has_more: true, next: "x" } });
        });
    """
    accounts(browser, desk, more)
    assert "the first 5,000 accounts" in browser.run("return await kept.page.textContent('main')")
    accounts(browser, desk)
    assert "the first 5,000" not in browser.run("return await kept.page.textContent('main')")


@pytest.mark.parametrize("path", ["/", "/my-credits", "/admin"])
def test_a_forgotten_key_does_not_come_back_with_the_page(browser: Browser, desk: Busy, path: str) -> None:
    """Back may show a page as it was left, with all that it has in memory."""
    browser.run(
        """
        kept.page?.context().close();
        const page = kept.page = await tab();
        await page.goto(args.url);
        await page.fill("#key", args.key);
        await page.keyboard.press("Enter");
        await page.getByRole("button", { name: "Forget key" }).waitFor();
        await page.evaluate(() => {
          sessionStorage.clear();
          dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
        });
        await page.getByLabel("API key").waitFor();
        """,
        url=desk.gateway.url + path,
        key=desk.boss,
    )
    assert browser.run("return await kept.page.getByRole('button', { name: 'Forget key' }).count()") == 0


def test_a_wide_table_scrolls_and_breaks_no_words(page: Playground, upstream: ScriptedUpstream) -> None:
    row = "| 1111111111 | 2222222222 | 3333333333 | 4444444444 | 5555555555 |\n"
    upstream.always(Kimi(f"| a | b | c | d | e |\n|--|--|--|--|--|\n{row}"))
    page.open(width=320)
    page.ask()
    heights = "return await page.$$eval('.markdown td', (all) => all.map((each) => each.clientHeight))"
    assert max(page.do(heights)) < 60
    assert page.do("return await faults(page)") == []


def test_nobody_is_told_to_wait_where_nothing_tries_again(page: Playground) -> None:
    page.open()
    page.do("await page.route('**/v1/chat/completions', (route) => route.abort())")
    answer = page.ask()
    assert "whether the gateway runs" in answer
    assert "tries again" not in answer


def test_a_page_that_tries_again_says_so(browser: Browser, desk: Busy) -> None:
    lost: Any = browser.run(
        """
        kept.page?.context().close();
        const page = kept.page = await tab();
        await page.addInitScript((key) => sessionStorage.setItem("kimi-gateway.key", key), args.key);
        await page.route("**/user/status", (route) => route.abort());
        await page.goto(args.url);
        return await page.textContent("[role=alert]");
        """,
        url=f"{desk.gateway.url}/my-credits",
        key=desk.user,
    )
    assert "tries again by itself" in lost
