"""The playground: errors, secrets, copies that run, and use by everyone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import SEARCH
from support.live import LiveGateway
from support.playground import Playground
from upstream import Cut, Kimi, ScriptedUpstream, Status
from upstream.search import result


@pytest.mark.parametrize(
    ("credits", "step", "told"),
    [
        (0, Kimi(), "no credits left. Ask the operator"),
        (5, Status(400, {"error": {"type": "content_filter", "message": "high risk"}}), "Change the message"),
        (5, Cut(600, Kimi("Some text that breaks off", "", pieces=8)), "Nothing was charged"),
    ],
    ids=["no credits", "refused", "broken"],
)
def test_an_error_says_what_to_do(
    page: Playground, gateway: LiveGateway, upstream: ScriptedUpstream, credits: int, step: Any, told: str
) -> None:
    upstream.always(step)
    page.open(gateway.key(credits))
    answer = page.ask()
    assert told in answer
    assert gateway.account(page.key).credits == credits
    upstream.always(Kimi("All is well."))
    if credits:
        page.do("await page.getByRole('button', { name: 'Try again' }).click()")
        page.do("await page.locator('.markdown', { hasText: 'All is well.' }).waitFor()")


def test_a_wrong_key_is_refused_at_the_door(page: Playground, gateway: LiveGateway) -> None:
    page.do(
        """
        kept.page?.context().close();
        const fresh = kept.page = await tab();
        await fresh.goto(args.url + "/");
        await fresh.getByLabel("API key").fill("sk-kg-wrong");
        await fresh.getByRole("button", { name: "Continue" }).click();
        await fresh.getByRole("alert").getByText("not accepted").waitFor();
        """,
        url=gateway.url,
    )


def test_the_key_is_in_the_tab_and_the_conversation_nowhere(page: Playground) -> None:
    page.open()
    page.ask("remember the word pineapple")
    kept = page.do(
        "return await page.evaluate(async () => ["
        "JSON.stringify(localStorage), JSON.stringify(sessionStorage),"
        " document.cookie, (await indexedDB.databases()).length, (await caches.keys()).length])"
    )
    assert page.key in kept[1]
    assert page.key not in kept[0] + kept[2]
    assert "pineapple" not in "".join(kept[:3])
    assert kept[3:] == [0, 0]
    page.do("await page.getByRole('button', { name: 'Forget key' }).click()")
    page.do("await page.getByLabel('API key').waitFor()")
    assert page.key not in page.do("return await page.evaluate(() => JSON.stringify(sessionStorage))")
    assert page.do("return await page.getByText('pineapple').count()") == 0


def copied(page: Playground, kind: str, own_key: bool) -> str:
    return str(
        page.do(
            """
            await page.getByRole("button", { name: "Copy as code…" }).click();
            await page.getByRole("button", { name: args.kind, exact: true }).click();
            await page.getByLabel("Put my key into the text").setChecked(args.own);
            const button = page.getByRole("dialog").getByRole("button", { name: "Copy", exact: true });
            const text = await copiedBy(button);
            await page.keyboard.press("Escape");
            await page.getByRole("dialog").waitFor({ state: "detached" });
            return text;
            """,
            kind=kind,
            own=own_key,
        )
    )


def test_copied_texts_run_and_ask_the_same(
    page: Playground, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.always(Kimi('It\'s "fine"', ""))
    page.open(clipboard=True)
    page.do('await page.getByLabel("System prompt").fill(args.text)', text="'$HOME' `id` \\ \"é\"\n👋")
    page.do('await page.getByLabel("Model").selectOption("kimi-k2.6")')
    page.do('await page.getByLabel("Reasoning").selectOption("off")')
    page.ask("It's\nEND_OF_REQUEST\n$(id)")
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    for kind, run, ways in (("curl", ["bash"], (False, True)), ("Python", [sys.executable], (False,))):
        for own in ways:
            text = copied(page, kind, own)
            assert (page.key in text) is own
            (tmp_path / "copied").write_text(text, "utf-8")
            given = {} if own else {"KIMI_GATEWAY_KEY": page.key}
            ran = subprocess.run(
                [*run, str(tmp_path / "copied")],
                env=environ | given,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ran.returncode == 0, ran.stderr
            if kind == "Python":
                assert ran.stdout == 'It\'s "fine"\n'
    assert len(upstream.chats) == 4
    first = upstream.chats[0].body
    assert all(chat.body == first for chat in upstream.chats)
    # Without TLS, as in a home's network, a page has no clipboard of its own.
    page.do(
        "await page.evaluate(() => { window.clip = navigator.clipboard;"
        " Object.defineProperty(navigator, 'clipboard', { value: undefined }); })"
    )
    settings = json.loads(copied(page, "Claude Code", own_key=False))["env"]
    assert (settings["ANTHROPIC_BASE_URL"], settings["ANTHROPIC_MODEL"]) == (page.gateway.url, "kimi-k2.6")
    assert page.key not in json.dumps(settings)


def test_a_conversation_is_exported(page: Playground, upstream: ScriptedUpstream) -> None:
    upstream.always(Kimi("The answer.", "Hm."))
    page.open()
    page.ask("The question?")
    load = """
        const download = page.waitForEvent("download");
        await page.getByRole("button", { name: args.name }).click();
        const { readFileSync } = await import("node:fs");
        return readFileSync(await (await download).path(), "utf8");
    """
    text = page.do(load, name="Export as Markdown")
    assert "## You\n\nThe question?\n\n## kimi-k3\n\n> Reasoning\n>\n> Hm.\n\nThe answer.\n" in text
    exported = json.loads(page.do(load, name="Export as JSON"))
    assert [each["role"] for each in exported["messages"]] == ["user", "assistant"]


FAULTS = "return await faults(page)"


@pytest.mark.parametrize(("width", "theme"), [(360, "dark"), (1280, "light")])
def test_everyone_can_use_it(page: Playground, upstream: ScriptedUpstream, width: int, theme: str) -> None:
    """By axe-core, in both languages, at both ends of the widths, by keyboard alone."""
    upstream.web.results = [result(1)]
    upstream.plan(
        Kimi("", "I search.", tools=[(SEARCH, {"query": "news"})]),
        Kimi("| a | b |\n|-|-|\n| 1 | 2 |\n\n```py\nx = 1\n```\n\n" + "long" * 50, "So."),
        Kimi("", "I look.", tools=[("weather", {"city": "Oslo"})]),
    )
    page.open(width=width, theme=theme)
    page.do("if (args.width < 1000) await page.locator('.panel > summary').click()", width=width)
    page.do("await page.getByText('Tools (JSON)').click()")
    assert page.do(FAULTS) == []
    page.do("await page.getByLabel('Tools (JSON)').fill(args.tool)", tool='{"name": "weather"}')
    page.do("await page.getByRole('button', { name: 'Web search' }).click()")
    page.ask("Everything?")
    page.do("await page.getByRole('button', { name: 'Web search' }).click()")
    page.ask("And a call?")
    page.do(
        "for (const each of await page.locator('details.reasoning').all())"
        " await each.evaluate((node) => { node.open = true; })"
    )
    page.do("await page.getByRole('button', { name: 'Edit' }).first().click()")
    assert page.do(FAULTS) == []
    for button in ("Copy as code…", "By address"):
        page.do("await page.getByRole('button', { name: args.button }).focus()", button=button)
        page.do("await page.keyboard.press('Enter'); await page.getByRole('dialog').waitFor()")
        assert page.do(FAULTS) == []
        page.do("await page.keyboard.press('Escape')")
        page.do("await page.getByRole('dialog').waitFor({ state: 'detached' })")
    page.do("await page.getByRole('button', { name: /Switch to Chinese/ }).click()")
    assert page.do("return await page.locator('html').getAttribute('lang')") == "zh-Hans"
    assert page.do("return await page.locator('.turn').count()") == 4
    assert "联网搜索" in page.do("return await page.locator('main').innerText()")
    assert page.do(FAULTS) == []
