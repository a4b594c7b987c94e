"""The playground in a browser, as its user has it."""

from __future__ import annotations

from typing import Any

from support.browsing import Browser
from support.live import LiveGateway

OPEN = """
kept.page?.context().close();
const page = kept.page = await tab(args.options ?? {});
await page.goto(args.url + "/");
await page.getByLabel("API key").fill(args.key);
await page.getByRole("button", { name: "Continue" }).click();
await page.getByLabel("Message", { exact: true }).waitFor();
"""
SEND = """
const page = kept.page, before = await page.locator(".answer[aria-busy=false]").count();
await page.getByLabel("Message", { exact: true }).fill(args.text);
await page.keyboard.press("Enter");
if (args.whole) await page.locator(".answer[aria-busy=false]").nth(before).waitFor();
"""
ANSWER = "return await kept.page.locator('.answer').last().innerText()"
# After a turn of the page's loop, which tells it of violations that have just happened.
NOTHING_SEEN = """
await kept.page?.evaluate(() => new Promise((resolve) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => resolve();
  port2.postMessage(null);
}));
return seen.splice(0);
"""


class Playground:
    def __init__(self, browser: Browser, gateway: LiveGateway) -> None:
        self.browser, self.gateway = browser, gateway
        self.key = ""

    def open(self, key: str = "", **options: Any) -> None:
        self.key = key or self.gateway.key()
        self.browser.run(OPEN, url=self.gateway.url, key=self.key, options=options)

    def send(self, text: str, whole: bool = True) -> None:
        self.browser.run(SEND, text=text, whole=whole)

    def ask(self, text: str = "Hello") -> str:
        self.send(text)
        return self.answer

    @property
    def answer(self) -> str:
        return str(self.browser.run(ANSWER))

    def do(self, code: str, **args: Any) -> Any:
        return self.browser.run(f"const page = kept.page; {code}", **args)
