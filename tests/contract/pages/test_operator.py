"""/admin in Chromium: who may use it, what it does, and that hostile names run nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browsing import Browser
from support.busy import HOSTILE, Busy, busy
from support.live import LiveGateway
from support.playground import NOTHING_SEEN

ASK = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}
SECTIONS = {"overview": "table", "accounts": ".account", "pool": "table", "requests": "table"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    with LiveGateway(tmp_path_factory.mktemp("operator")) as gateway:
        desk = busy(gateway, hours=20)
        with gateway.client(desk.user) as client:
            assert client.post("/v1/chat/completions", json=ASK).status_code == 200
            assert client.post("/v1/chat/completions", json={**ASK, "model": "none"}).status_code == 404
        yield desk


@pytest.fixture(autouse=True)
def nothing_seen(browser: Browser) -> Iterator[None]:
    yield
    assert browser.run(NOTHING_SEEN) == []


def ask(desk: Busy, path: str, key: str = "") -> Any:
    with desk.gateway.client(key or desk.boss) as client:
        return client.get(path).json()


def refusal(browser: Browser, url: str, key: str) -> str:
    told: str = browser.run(
        """
        kept.page?.context().close();
        kept.page = await tab();
        await kept.page.goto(args.url);
        await kept.page.fill("#key", args.key);
        await kept.page.keyboard.press("Enter");
        return await kept.page.textContent("[role=alert]");
        """,
        url=f"{url}/admin",
        key=key,
    )
    return told


def test_it_says_who_may_use_it_and_how_it_is_turned_on(browser: Browser, desk: Busy, tmp_path: Path) -> None:
    assert "--role operator" in refusal(browser, desk.gateway.url, desk.user)
    with LiveGateway(tmp_path, admin=False) as closed:
        assert "KIMI_GATEWAY_ADMIN=on" in refusal(browser, closed.url, closed.key())


@pytest.mark.parametrize("section", list(SECTIONS))
@pytest.mark.parametrize(
    "look", [{"width": 360, "theme": "dark"}, {"width": 1280, "locale": "zh-CN"}], ids=str
)
def test_every_section_is_readable_and_hostile_names_are_text(
    browser: Browser, desk: Busy, section: str, look: dict[str, Any]
) -> None:
    desk.open(browser, f"/admin#{section}", SECTIONS[section], desk.boss, **look)
    assert browser.run("return await faults(kept.page)") == []
    shown = browser.run(
        "return [await kept.page.textContent('main'), await kept.page.locator('main img').count()]"
    )
    assert shown[1] == 0
    assert (HOSTILE in shown[0]) == (section in ("overview", "accounts"))


def test_spending_pool_and_requests_are_those_of_the_api(browser: Browser, desk: Busy) -> None:
    desk.open(browser, "/admin", "table", desk.boss)
    text = browser.run("return await kept.page.textContent('main')")
    for row in ask(desk, "/admin/usage?by=key&since=30d")["data"]:
        assert row["key"] in text
        assert f"{row['input'] + row['output']:,}" in text
    assert "the built-in demo answers" in text
    desk.open(browser, "/admin#requests", "table", desk.boss)
    cells = "return await kept.page.$$eval('tbody tr', (rows) => rows.map((row) => row.cells[3].textContent))"
    assert "200" in browser.run(cells)
    browser.run(
        "await kept.page.fill('#by-status', '404'); await kept.page.keyboard.press('Enter');"
        " await kept.page.waitForFunction(() => [...document.querySelectorAll('tbody tr')]"
        ".every((row) => row.cells[3].textContent === '404'))"
    )
    assert set(browser.run(cells)) == {"404"}
    (provider,) = ask(desk, "/admin/pool")["data"]
    desk.open(browser, "/admin#pool", "table", desk.boss)
    ids = browser.run(
        "return await kept.page.$$eval('tbody th', (all) => all.map((each) => each.textContent))"
    )
    assert ids == [token["id"] for token in provider["tokens"]]


MAKE = """
const page = kept.page;
await page.getByRole("button", {name: "New account", exact: true}).click();
await page.fill("#f-name", args.name);
await page.fill("#f-credits", "7");
await page.keyboard.press("Enter");
await page.waitForSelector("dialog", {state: "detached"});
const card = page.locator(".account", {hasText: args.name});
await card.getByRole("button", {name: /^New key/}).click();
await page.fill("#f-name", "phone");
await page.fill("#f-rpm", "abc");
await page.keyboard.press("Enter");
const refused = await page.textContent("dialog [role=alert]");
await page.fill("#f-rpm", "5");
await page.fill("#f-budgets", "usd/day=2.5");
const wrong = await faults(page);
await page.keyboard.press("Enter");
await page.waitForSelector(".secret");
const secret = await page.textContent(".secret");
const copied = await copiedBy(page.locator("dialog").getByRole("button", {name: "Copy"}));
const still = await page.locator("dialog").getByRole("button", {name: "Close"}).evaluate((button) => {
  button.click();
  return document.documentElement.outerHTML;
});
await card.getByText("phone").waitFor();
return [refused, wrong, secret, copied, still.includes(secret)];
"""


def offered(browser: Browser, name: str) -> list[str]:
    """The packages that the dialog offers, with their meaning."""
    found: list[str] = browser.run(
        """
        const card = kept.page.locator(".account", {hasText: args.name});
        await card.getByRole("button", {name: "Grant credits"}).click();
        await kept.page.locator("dialog").waitFor();
        const found = await kept.page.locator("dialog datalist option").evaluateAll(
          (all) => all.map((each) => `${each.value}: ${each.label}`));
        await kept.page.locator("dialog").getByRole("button", {name: "Cancel"}).click();
        return found;
        """,
        name=name,
    )
    return found


def test_an_account_and_a_key_are_made_used_suspended_and_revoked(browser: Browser, desk: Busy) -> None:
    name = "New <b>person</b>"
    desk.open(browser, "/admin#accounts", ".account", desk.boss, clipboard=True)
    refused, wrong, secret, copied, still = browser.run(MAKE, name=name)
    assert "rpm" in refused
    assert (wrong, copied, still) == ([], secret, False)
    (account,) = [each for each in ask(desk, "/admin/accounts")["data"] if each["name"] == name]
    (key,) = account["keys"]
    assert (account["credits"], key["limits"]["rpm"], key["budgets"]) == (7, 5, {"usd/day": 2.5})

    def press(action: str, then: str, **fill: str) -> None:
        browser.run(
            """
            const card = kept.page.locator(".account", {hasText: args.name});
            await card.getByRole("button", {name: args.action}).last().click();
            for (const [field, text] of Object.entries(args.fill)) await kept.page.fill(`#f-${field}`, text);
            const asks = Object.keys(args.fill).length || args.action === "Revoke";
            if (asks) await kept.page.locator("dialog button[type=submit]").click();
            await card.getByText(args.then).first().waitFor();
            """,
            name=name, action=action, then=then, fill=fill,
        )  # fmt: skip

    def status() -> int:
        with desk.gateway.client(secret) as client:
            return client.get("/user/status").status_code

    press("Grant credits", "12 credits left", credits="5")
    press("Grant credits", "512 credits left", package="starter")
    assert "starter: 500 credits" in offered(browser, name)
    press("Take credits away", "510 credits left", credits="2")
    assert status() == 200
    press("Suspend", "suspended")
    assert status() in (401, 403)
    press("Resume", "active")
    assert status() == 200
    press("Revoke", "revoked")
    assert status() == 401


REFUSED = """
const card = kept.page.locator(".account", {hasText: args.name});
await card.getByRole("button", {name: args.action}).first().click();
for (const [field, text] of Object.entries(args.fill)) await kept.page.fill(`#f-${field}`, text);
await kept.page.locator("dialog button[type=submit]").click();
const told = await kept.page.textContent("dialog [role=alert]");
const wrong = await faults(kept.page);
await kept.page.locator("dialog").getByRole("button", {name: "Cancel"}).click();
return wrong.join() || told;
"""
DELETE = """
const card = kept.page.locator(".account", {hasText: args.name});
await card.getByRole("button", {name: "Delete account"}).click();
await kept.page.fill("#f-name", args.name);
await kept.page.keyboard.press("Enter");
await card.waitFor({state: "detached"});
"""


def test_an_account_is_deleted_after_its_name_was_entered(browser: Browser, desk: Busy) -> None:
    name = "Old <b>account</b>"
    with desk.gateway.client(desk.boss) as client:
        made = client.post("/admin/accounts", json={"name": name, "credits": 9}).json()["id"]
    desk.open(browser, "/admin#accounts", ".account", desk.boss)

    def refused(action: str, **fill: str) -> str:
        """What a dialog says that stays open, or what axe-core finds in it."""
        told: str = browser.run(REFUSED, name=name, action=action, fill=fill)
        return told

    def there() -> bool:
        return made in {each["id"] for each in ask(desk, "/admin/accounts")["data"]}

    assert "Only 9 credits" in refused("Take credits away", credits="10")
    assert "premium" in refused("Grant credits", package="gold")
    assert "either credits or package" in refused("Grant credits", package="starter", credits="3")
    assert "Nothing was deleted" in refused("Delete account", name="another")
    assert there()
    browser.run(DELETE, name=name)
    assert not there()


KEYS = """
const page = kept.page, row = page.locator("tr", {hasText: "old name"}), dialog = page.locator("dialog");
await row.getByRole("button", {name: /^Rotate/}).click();
await page.fill("#f-overlap", "soon");
await dialog.locator("button[type=submit]").click();
const refused = await page.textContent("dialog [role=alert]");
await page.fill("#f-overlap", "0");
await dialog.locator("button[type=submit]").click();
await page.waitForSelector(".secret");
const secret = await page.textContent(".secret");
await dialog.getByRole("button", {name: "Close"}).click();
await row.getByRole("button", {name: /^Change/}).click();
await page.fill("#f-name", "new name");
await page.fill("#f-rpd", "77");
await dialog.locator("button[type=submit]").click();
await page.locator("tr", {hasText: "new name"}).waitFor();
await page.goto(args.pool);
const asked = page.waitForResponse("**/admin/pool?balance=now");
await page.getByRole("button", {name: "Ask for balances"}).click();
return [refused, secret, (await asked).status()];
"""


def test_a_key_is_rotated_and_changed_and_balances_are_asked_for(browser: Browser, desk: Busy) -> None:
    with desk.gateway.client(desk.boss) as client:
        made = client.post("/admin/keys", json={"name": "old name", "credits": 5}).json()
        desk.open(browser, "/admin#accounts", ".account", desk.boss)
        refused, secret, status = browser.run(KEYS, pool=f"{desk.gateway.url}/admin#pool")
        key = client.get(f"/admin/keys/{made['id']}").json()
    assert "overlap" in refused
    assert (key["name"], key["limits"]["rpd"], status) == ("new name", 77, 200)
    for used, answer in ((made["key"], 401), (secret, 200)):
        with desk.gateway.client(used) as client:
            assert client.get("/user/status").status_code == answer
