"""/my-credits in Chromium: its numbers are those of the API, it follows them, and everybody can read it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.browsing import Browser
from support.busy import Busy, busy
from support.live import LiveGateway
from support.playground import NOTHING_SEEN

READY = ".figure"
ASK = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """Its clock begins in the middle of an hour: none ends between a look at the page and one at the API."""
    ahead = time.time() // 3600 * 3600 + 1800 - time.monotonic()
    with LiveGateway(tmp_path_factory.mktemp("credits"), clock=lambda: ahead + time.monotonic()) as gateway:
        yield busy(gateway)


@pytest.fixture(autouse=True)
def nothing_seen(browser: Browser) -> Iterator[None]:
    yield
    assert browser.run(NOTHING_SEEN) == []


def asked(desk: Busy, path: str) -> Any:
    with desk.gateway.client(desk.user) as client:
        return client.get(path).json()


def digits(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text))


def table(browser: Browser, name: str) -> list[list[str]]:
    rows: list[list[str]] = browser.run(
        "return await kept.page.$$eval(`[aria-label='${args.name}'] tbody tr`,"
        " (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)))",
        name=name,
    )
    return rows


def test_a_key_is_asked_for_checked_and_kept_in_the_tab_only(browser: Browser, desk: Busy) -> None:
    desk.open(browser, "/my-credits", "#key")
    told = browser.run(
        """
        const page = kept.page;
        await page.fill("#key", "sk-kg-wrong");
        await page.keyboard.press("Enter");
        const refusal = await page.textContent("[role=alert]");
        await page.fill("#key", args.key);
        await page.keyboard.press("Enter");
        await page.waitForSelector(args.ready);
        const kept_in = () => [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie];
        return [refusal, await page.evaluate(kept_in)];
        """,
        key=desk.user,
        ready=READY,
    )
    refusal, (session, local, cookie) = told
    assert "not accepted" in refusal
    assert desk.user in session
    assert desk.user not in local + cookie
    browser.run("await kept.page.click('.key-in-use button'); await kept.page.waitForSelector('#key')")
    assert browser.run("return await kept.page.evaluate(() => sessionStorage.length)") == 0


@pytest.mark.parametrize(("by", "since"), [("hour", "24h"), ("day", "30d")])
def test_the_numbers_are_those_of_the_api(browser: Browser, desk: Busy, by: str, since: str) -> None:
    desk.open(browser, "/my-credits", READY, desk.user)
    if by == "day":
        browser.run("await kept.page.check('input[value=day]')")
    usage = asked(desk, f"/user/usage?by={by}&since={since}&limit=1000")
    total, status = usage["total"], asked(desk, "/user/status")
    shown = f"{total['requests'] + total['errors'] + total['free']:,}"
    browser.run(
        "await kept.page.waitForFunction((text) =>"
        " document.querySelector('.reading').textContent === text, args.text)",
        text=shown,
    )
    readings = browser.run(
        "return await kept.page.$$eval('.reading', (all) => all.map((each) => each.textContent))"
    )
    assert digits(readings[1]) == total["input"] + total["output"]
    assert digits(readings[2]) == pytest.approx(total["cost_usd"], abs=0.005)
    assert digits(readings[3]) == pytest.approx(100 * total["cached"] / total["input"], abs=0.05)
    rows = table(browser, "The same as a table")
    assert [row[0].replace(" ", "T").removesuffix(":00") for row in rows] == [
        row[by].removesuffix(":00Z").removesuffix(":00") for row in usage["data"]
    ]
    columns = ("requests", "errors", "free", "input", "cached", "output", "credits")
    assert [[digits(cell) for cell in row[1:8]] for row in rows] == [
        [row[name] for name in columns] for row in usage["data"]
    ]
    assert {digits(row[1]) for row in table(browser, "Errors by cause")} == set(
        map(float, total["causes"].values())
    )
    figure = browser.run("return await kept.page.textContent('.figure')")
    assert digits(figure) == status["credits"]
    gauges = browser.run(
        "return await kept.page.$$eval('[role=meter]', (all) =>"
        " all.map((each) => each.getAttribute('aria-valuetext')))"
    )
    limits = [each for each in status["limits"] if each["limit"] is not None]
    assert gauges[: len(limits)] == [f"{each['remaining']:,} of {each['limit']:,} left" for each in limits]
    assert len(gauges) == len(limits) + len(status["budgets"])
    painted = browser.run(
        "return await kept.page.$$eval('.frame canvas', (all) => all.map((each) =>"
        " new Set(each.getContext('2d')"
        ".getImageData(0, 0, each.width, each.height).data).size > 4))"
    )
    assert painted == [True] * 4


# A page whose clock stands still.
STILL = """
const page = kept.page = await (kept.page?.context().close(), tab());
await page.clock.install();
await page.clock.pauseAt(Date.now() + 1000);
await page.addInitScript((key) => sessionStorage.setItem("kimi-gateway.key", key), args.key);
"""
FOLLOWED = """
await page.goto(args.url + "/my-credits");
return await page.textContent(".figure");
"""


def test_it_follows_the_account_without_a_reload(browser: Browser, desk: Busy) -> None:
    """Ten seconds later, by a clock of the test's."""
    before = browser.run(STILL + FOLLOWED, url=desk.gateway.url, key=desk.user)
    with desk.gateway.client(desk.user) as client:
        assert client.post("/v1/chat/completions", json=ASK).status_code == 200
    left = f"{asked(desk, '/user/status')['credits']:,}"
    after = browser.run(
        "await kept.page.clock.runFor(10000);"
        " await kept.page.locator('.figure', {hasText: args.left}).waitFor();"
        " return await kept.page.textContent('.figure');",
        left=left,
    )
    assert not before.startswith(left)
    assert after.startswith(left)


LOOKS = [
    {"width": width, "theme": theme, "locale": locale}
    for width, theme, locale in (
        (360, "dark", "zh-CN"),
        (360, "light", "en-GB"),
        (1280, "dark", "en-GB"),
        (1280, "light", "zh-CN"),
    )
]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_it_is_readable_for_all(browser: Browser, desk: Busy, look: dict[str, Any]) -> None:
    desk.open(browser, "/api/my-credits", READY, desk.user, **look)
    assert browser.run("return await faults(kept.page)") == []
    title = browser.run("return await kept.page.textContent('h1')")
    assert title == ("我的额度" if look["locale"] == "zh-CN" else "My credits")
    browser.run("await kept.page.locator('.settings button').last().click()")
    other = browser.run(
        "return [await kept.page.textContent('h1'),"
        " await kept.page.evaluate(() => document.documentElement.lang)]"
    )
    assert other == (["My credits", "en"] if look["locale"] == "zh-CN" else ["我的额度", "zh-Hans"])


POLLED = """
let asked = 0, broken = false;
const paths = [];
page.on("request", (request) => paths.push(new URL(request.url()).pathname));
await page.route("**/Prod/**", (route) => {
  if (route.request().url().endsWith("/user/status")) {
    asked += 1;
    if (broken) return route.fulfill({status: 503, json: {error: {message: "down"}}});
  }
  return route.continue({url: route.request().url().replace("/Prod/", "/")});
});
await page.goto(args.url + "/Prod/my-credits");
await page.waitForSelector(".figure");
const settled = () => page.evaluate(() => fetch("ping").then((response) => response.text()));
const counts = [];
const pass = async (seconds, asks) => {
  const before = asked;
  const answer = asks ? page.waitForResponse("**/user/status") : null;
  await page.clock.runFor(1000 * seconds);
  await (await answer)?.finished();
  await settled();
  counts.push(asked - before);
};
const hide = (hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}, hidden);
await settled();
await pass(10, true);
broken = true;
await pass(10, true);
await pass(10, false);
await pass(10, true);
await pass(30, false);
await pass(10, true);
await hide(true);
await pass(900, false);
broken = false;
const answer = page.waitForResponse("**/user/status");
await hide(false);
await (await answer).finished();
await settled();
return [counts, asked, paths.filter((path) => !path.startsWith("/Prod/"))];
"""


def test_it_asks_less_often_after_failures_not_while_hidden_and_below_its_own_prefix(
    browser: Browser, desk: Busy
) -> None:
    """The clock is the test's. The prefix is one of API Gateway's stages, which takes it away."""
    counts, asked, elsewhere = browser.run(STILL + POLLED, url=desk.gateway.url, key=desk.user)
    assert counts == [1, 1, 0, 1, 0, 1, 0]
    assert asked == 6
    assert elsewhere == []
