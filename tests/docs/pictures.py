"""The pictures of the documentation, taken in Chromium: `scripts/pictures` writes docs/pictures."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from support import ROOT
from support.browsing import Browser
from support.busy import busy
from support.live import LiveGateway
from support.playground import OPEN, SEND
from upstream import Kimi, ScriptedUpstream
from upstream.kimi import usage_of

FOLDER = ROOT / "docs/pictures"
ANSWER = """SQLite and DynamoDB solve different problems.

| | SQLite | DynamoDB |
|---|---|---|
| Runs | inside your process | as a service of AWS |
| Writes | one at a time | thousands in parallel |
| Costs | nothing | by request |

Begin with SQLite. Opening a database takes one line:

```python
db = sqlite3.connect("gateway.db")
```

**Move to DynamoDB** when several machines share the data.
"""
# WebP of good quality is a third of PNG.
PACKED = """
const png = await kept.page.screenshot();
const blank = await kept.page.context().newPage();
return await blank.evaluate(async (data) => {
  const picture = await createImageBitmap(await (await fetch(data)).blob());
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas.toDataURL("image/webp", 0.85).split(",")[1];
}, `data:image/png;base64,${png.toString("base64")}`);
"""


def playground(browser: Browser, upstream: ScriptedUpstream, gateway: LiveGateway) -> bytes:
    """A question with its answer."""
    thought = "Both store the gateway's data. A table shows where each of them fits."
    upstream.plan(Kimi(ANSWER, thought, usage=usage_of(1240, 182, cached=1024)))
    options = {"width": 1180, "height": 720}
    browser.run(OPEN, url=gateway.url, key=gateway.key(), options=options)
    browser.run(SEND, text="Compare SQLite and DynamoDB in a table", whole=True)
    return base64.b64decode(browser.run(PACKED))


def credits(browser: Browser, upstream: ScriptedUpstream, gateway: LiveGateway) -> bytes:
    """A month of an account."""
    desk = busy(gateway, ("Alice", "Research team", "Workshop"), hours=700)
    desk.open(browser, "/my-credits", ".figure", desk.user, width=1180, height=1080, theme="dark")
    browser.run("await kept.page.check('input[value=day]'); await kept.page.waitForTimeout(500)")
    return base64.b64decode(browser.run(PACKED))


def operator(browser: Browser, upstream: ScriptedUpstream, gateway: LiveGateway) -> bytes:
    """What the operator sees first."""
    desk = busy(gateway, (), hours=0)
    desk.open(browser, "/admin", "table", desk.boss, width=1180, height=1000)
    browser.run("await kept.page.waitForTimeout(500)")
    return base64.b64decode(browser.run(PACKED))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedUpstream() as upstream,
        LiveGateway(Path(folder), upstream.url) as gateway,
        Browser() as browser,
    ):
        for take in (playground, credits, operator):
            picture = take(browser, upstream, gateway)
            (FOLDER / f"{take.__name__}.webp").write_bytes(picture)
            print(f"docs/pictures/{take.__name__}.webp: {len(picture)} bytes")


if __name__ == "__main__":
    main()
