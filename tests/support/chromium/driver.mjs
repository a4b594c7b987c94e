// Steers one Chromium for tests: each line of the input is {"code", "args"}, each line of the output
// {"result"} or {"error"}. The code is the body of an async function (browsing.py).
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
});

const SLOWER = Number(process.env.BROWSER_SLOWER ?? 1); // how many times slower the page's processor is

// What must stay empty: console errors, uncaught errors, dialogs, violations of the policy, requests elsewhere.
let seen = [];

/** A new tab in a context of its own: {width, height, theme, locale, storage, clipboard}. */
async function tab({ width = 1280, height = 900, theme = "light", locale = "en-GB", clipboard = false, scale = 1 } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, locale, deviceScaleFactor: scale,
    reducedMotion: "reduce", permissions: clipboard ? ["clipboard-read", "clipboard-write"] : [] });
  const page = await context.newPage();
  if (SLOWER > 1) await (await context.newCDPSession(page)).send("Emulation.setCPUThrottlingRate", { rate: SLOWER });
  page.setDefaultTimeout(60000);
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && !/Failed to load resource/.test(line.text()) && seen.push(`console: ${line.text()}`));
  page.on("pageerror", (error) => seen.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { seen.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (!["data:", "blob:"].includes(protocol) && hostname !== "127.0.0.1") seen.push(`foreign: ${request.url()}`);
  });
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  return page;
}

/** What axe-core finds in a page, and whether it scrolls sideways. */
async function faults(page) {
  await page.evaluate(axe); // through the debugger, which the page's policy does not bind
  return page.evaluate(async () => {
    const found = await window.axe.run(document, { resultTypes: ["violations"] });
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    return [...found.violations.flatMap((each) => each.nodes.map((node) => `${each.id}: ${node.target} ${node.failureSummary}`)), ...(wide > 0 ? [`${wide} px too wide`] : [])];
  });
}

/** What a copy button has put on the clipboard. Its label says for two seconds only that it has done so. */
async function copiedBy(button) {
  await button.evaluate((node) => {
    window.labelled = new Promise((resolve) => {
      new MutationObserver(() => resolve(node.textContent)).observe(node, { childList: true });
    });
  });
  await button.click();
  const [label, text] = await button.page().evaluate(async () => [await window.labelled, await (window.clip ?? navigator.clipboard).readText()]);
  if (label !== "Copied") throw new Error(`the button says ${label}`);
  return text;
}

const LONGEST = 100000; // ms of a step; some calls of a browser have no limit of their own

/** The result of a step. Rejects if it takes too long. */
async function within(step) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("the step does not end")), LONGEST); });
  try {
    return await Promise.race([step, late]);
  } finally {
    clearTimeout(timer);
  }
}

const kept = {};
process.stdout.write("ready\n");
for await (const line of createInterface({ input: process.stdin })) {
  const { code, args } = JSON.parse(line);
  let answer;
  try {
    const result = await within(new AsyncFunction("tab", "faults", "copiedBy", "kept", "seen", "args", code)(tab, faults, copiedBy, kept, seen, args));
    answer = { result: result ?? null };
  } catch (error) {
    answer = { error: `${error.stack ?? error}`, seen };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
