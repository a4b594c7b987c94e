"""The playground in Chromium before a real gateway: what its user, the upstream and the ledger see."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from kimi_gateway.accounts import keys
from kimi_gateway.flow.search.tools import SEARCH
from support.live import LiveGateway
from support.playground import Playground
from support.web import Web
from upstream import Gated, Kimi, ScriptedUpstream, Stall
from upstream.kimi import usage_of
from upstream.search import result

CHOOSE = """
const chooser = page.waitForEvent("filechooser");
await page.getByRole("button", { name: "Files" }).click();
const buffer = Buffer.from("%PDF-1.4 (The paper) Tj");
await (await chooser).setFiles({ name: "paper.pdf", mimeType: "application/pdf", buffer });
await page.locator(".composer .chip", { hasText: "paper.pdf" }).filter({ hasNotText: "uploaded" }).waitFor();
"""  # a file is sent only when it is read or uploaded


def messages(upstream: ScriptedUpstream) -> Any:
    return upstream.chats[-1].body["messages"]


def test_an_answer_is_seen_while_it_comes_with_its_reasoning_apart(
    page: Playground, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    usage = usage_of(1000, 200, cached=400)
    gated = Gated(Kimi("One two **three** four.", "First I think.", usage=usage, pieces=2))
    upstream.plan(gated)
    page.open()
    page.send("Count", whole=False)
    gated.let(3)  # the role and all of the reasoning
    page.do("await page.locator('.reasoning[open]', { hasText: 'First I think.' }).waitFor()")
    gated.let(1)
    page.do("await page.locator('.answer[aria-busy=true] .markdown', { hasText: 'One two' }).waitFor()")
    upstream.until(lambda: gated.sent == 4)
    assert page.do("return await page.locator('.reasoning').evaluate((node) => node.open)") is False
    gated.let(100)
    page.do("await page.locator('.answer[aria-busy=false]').waitFor()")
    assert page.do("return await page.locator('.markdown strong').innerText()") == "three"
    facts = page.do(
        "return Object.fromEntries(await page.locator('.facts div').evaluateAll((all) =>"
        " all.map((each) => [...each.children].map((part) => part.textContent))))"
    )
    assert (facts["Input"], facts["Output"]) == ("1,000 (400 cached)", "200")
    with gateway.client(page.key) as client:
        assert facts["Cost"] == f"${client.get('/user/usage').json()['total']['cost_usd']}" == "$0.00492"
    said = page.do("return await page.getByRole('status').textContent()")
    assert said == "Answer finished: One two **three** four."


def test_stopping_ends_the_call_upstream_and_the_conversation_goes_on(
    page: Playground, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.plan(Stall(3, Kimi("Half of it, and more", "", pieces=2)))
    page.open()
    page.send("Begin", whole=False)
    page.do("await page.locator('.markdown', { hasText: 'Half of' }).waitFor()")
    page.do("await page.getByRole('button', { name: 'Stop' }).click()")
    page.do("await page.getByText('You stopped this answer.').waitFor()")
    assert upstream.chats[0].closed_early.wait(20)
    page.ask("Go on")
    first, second, third = messages(upstream)
    assert (first["content"], third["content"]) == ("Begin", "Go on")
    assert second["content"].startswith("Half of")
    gateway.nothing_left(page.key)
    assert gateway.account(page.key).credits == 98
    (row,) = gateway.usage(page.key)
    assert row.requests == 2


def test_a_search_shows_its_sources(page: Playground, upstream: ScriptedUpstream) -> None:
    upstream.web.results = [result(1), result(2, title="<b>Two</b>")]
    upstream.plan(Kimi("", "I search.", tools=[(SEARCH, {"query": "news"})]), Kimi("It is new [1].", ""))
    page.open()
    page.do("await page.getByRole('button', { name: 'Web search' }).click()")
    page.ask("What is new?")
    sources = page.do(
        "return await page.locator('.sources a').evaluateAll("
        "(all) => all.map((each) => [each.textContent, each.href]))"
    )
    assert sources == [["Page 1", "https://example.com/1"], ["<b>Two</b>", "https://example.com/2"]]
    assert len(upstream.searches) == 1
    assert "Cost" in page.answer


def test_a_key_that_may_not_search_is_answered_and_told_so(
    page: Playground, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    key = gateway.key()
    gateway.do(
        gateway.store.update_key(keys.digest(key), lambda old: replace(old, search=False), int(time.time()))
    )
    page.open(key)
    page.do("await page.getByRole('button', { name: 'Web search' }).click()")
    assert "The web was not searched" in page.ask()


def test_a_call_is_shown_and_its_result_goes_back(page: Playground, upstream: ScriptedUpstream) -> None:
    upstream.plan(Kimi("", "I look.", tools=[("weather", {"city": "Oslo"})]), Kimi("It snows."))
    page.open()
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    page.do("await page.getByText('Tools (JSON)').click()")
    page.do("await page.getByLabel('Tools (JSON)').fill(args.tool)", tool=json.dumps(tool))
    assert '"city": "Oslo"' in page.ask("How is Oslo?")
    page.do("await page.getByLabel('Result of weather').fill('snow')")
    page.do("await page.getByRole('button', { name: 'Send results' }).click()")
    page.do("await page.locator('.answer[aria-busy=false]', { hasText: 'It snows.' }).waitFor()")
    _, call, told = messages(upstream)
    assert call["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert (call["reasoning_content"], told["content"]) == ("I look.", "snow")
    page.do("await page.getByRole('button', { name: 'Send results' }).waitFor({ state: 'detached' })")


def test_wrong_tools_are_said_and_not_sent(page: Playground, upstream: ScriptedUpstream) -> None:
    page.open()
    page.do("await page.getByText('Tools (JSON)').click(); await page.getByLabel('Tools (JSON)').fill('[{')")
    page.do("await page.getByText('The tools are not valid').waitFor()")
    page.ask()
    assert "tools" not in upstream.chats[0].body


def test_files_are_dropped_pasted_chosen_and_named_by_address(
    page: Playground, gateway: LiveGateway, upstream: ScriptedUpstream, web: Web
) -> None:
    page.open()
    page.do(
        """
        const give = (kind, name, type, text) => page.evaluate(([kind, name, type, text]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([text], name, { type }));
          const field = document.querySelector("#message");
          const how = { dataTransfer: transfer, clipboardData: transfer, bubbles: true, cancelable: true };
          const event = kind === "drop" ? new DragEvent("drop", how) : new ClipboardEvent("paste", how);
          field.dispatchEvent(event);
        }, [kind, name, type, text]);
        await give("drop", "cat.gif", "image/gif", "GIF89a picture");
        const chips = page.locator(".composer .chip").filter({ hasNotText: "uploaded" });
        const ready = (hasText) => chips.filter({ hasText }).waitFor();
        await ready("cat.gif");
        await give("paste", "notes.txt", "text/plain", "a note");
        await ready("notes.txt");
        """
        + CHOOSE
        + """
        await page.getByRole("button", { name: "By address" }).click();
        await page.getByLabel("Address (https://…)").fill("ftp://example.com/x");
        await page.getByRole("button", { name: "Add", exact: true }).click();
        await page.getByText("This is not an address of the web").waitFor();
        await page.getByLabel("Address (https://…)").fill(args.report);
        await page.getByRole("button", { name: "Add", exact: true }).click();
        """,
        report=f"http://{web.target}/report.pdf",
    )
    assert len(upstream.files.files) == 1
    page.ask("What is this?")
    said = json.dumps(messages(upstream))
    picture = "data:image/gif;base64,R0lGODlhIHBpY3R1cmU="
    for part in (picture, "a note", "The paper", "The report", "What is this?"):
        assert part in said
    assert web.asked == ["/report.pdf"]
    page.do("await page.getByRole('button', { name: 'New conversation' }).click()")
    upstream.until(lambda: not upstream.files.files)


def test_an_upload_that_is_removed_or_left_behind_is_deleted(
    page: Playground, upstream: ScriptedUpstream
) -> None:
    page.open()
    page.do(CHOOSE)
    page.do("await page.getByRole('button', { name: 'Remove paper.pdf' }).click()")
    upstream.until(lambda: upstream.files.deletions == 1)
    page.do(CHOOSE)
    page.do("await page.reload()")
    upstream.until(lambda: upstream.files.deletions == 2)
    assert not upstream.files.files


def test_turns_are_edited_repeated_and_deleted(page: Playground, upstream: ScriptedUpstream) -> None:
    upstream.plan(*(Kimi(text, "") for text in ("A", "B", "C", "D")))
    page.open()
    page.ask("one")
    page.ask("two")
    page.do("await page.getByRole('button', { name: 'Try again' }).last().click()")
    page.do("await page.locator('.answer[aria-busy=false] .markdown', { hasText: 'C' }).waitFor()")
    assert [each["content"] for each in messages(upstream)] == ["one", "A", "two"]
    page.do("await page.getByRole('button', { name: 'Try again' }).first().click()")
    asks = page.do(
        "const dialog = page.getByRole('dialog', { name: 'Later messages' });"
        "const told = await dialog.innerText();"
        "const wrong = await faults(page);"
        "await dialog.getByRole('button', { name: 'Close' }).click();"
        "return [told, wrong, await page.locator('.turn').count()]"
    )
    assert "Later messages of yours: 1" in asks[0]
    assert asks[1:] == [[], 4]
    assert len(upstream.chats) == 3
    page.do(
        "await page.getByRole('button', { name: 'Edit' }).first().click();"
        "await page.getByLabel('Edit your message').fill('ONE');"
        "await page.getByRole('button', { name: 'Send again' }).click();"
        "await page.getByRole('button', { name: 'Delete and go on' }).click();"
        "await page.locator('.answer[aria-busy=false] .markdown', { hasText: 'D' }).waitFor()"
    )
    assert [each["content"] for each in messages(upstream)] == ["ONE"]
    assert page.do("return await page.locator('.turn').count()") == 2
    page.do("await page.locator('.question').getByRole('button', { name: 'Delete' }).click()")
    assert page.do("return await page.locator('.turn').count()") == 0
    page.do("await page.getByText('Ask your Kimi').waitFor()")


def test_settings_go_along_and_what_a_model_does_not_take_is_said(
    page: Playground, upstream: ScriptedUpstream
) -> None:
    page.open()
    page.do(
        """
        await page.getByLabel("System prompt").fill("Be brief.");
        await page.getByLabel("Temperature").fill("0.3");
        await page.getByLabel("Longest answer, in tokens").fill("500");
        await page.getByLabel("Model").selectOption("kimi-k2.6");
        await page.getByLabel("Reasoning").selectOption("off");
        """
    )
    assert "This model does not take: temperature" in page.ask()
    sent = upstream.chats[0].body
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["model"], sent["thinking"]["type"]) == ("kimi-k2.6", "disabled")
    assert sent["max_completion_tokens"] == 500
    page.do('await page.getByLabel("Model").selectOption("kimi-k3")')
    page.do('await page.getByLabel("Reasoning").selectOption("max")')
    page.ask()
    assert upstream.chats[1].body["reasoning_effort"] == "max"
