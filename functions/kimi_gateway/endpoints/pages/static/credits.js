import { Plot, column, filled } from "./plot.js";
import { alertOf, api, el, fill, key, keyForm, money, number, onLanguage, percent, poll, short, start, t, told, useKey, when } from "./shell.js";
import { Table, meter } from "./tables.js";
import words from "./words/credits.js";

const EVERY = 10; // seconds between two looks at /user/status
const ALL = 60; // seconds after which everything is read again, changed or not
const RANGES = { hour: { since: "24h", count: 24 }, day: { since: "30d", count: 30 } };
const main = document.querySelector("main");

let watching = null, seen = null, page = null;
let by = "hour";

// What is read ---------------------------------------------------------------------------------------

/** The status now, and everything else if the status has changed. */
async function look(signal) {
  const range = by; // another may be chosen meanwhile
  const status = await api("user/status", { signal });
  const mark = JSON.stringify([status.credits, status.used_today, status.last_request_at, status.key, range]);
  if (!seen || seen.mark !== mark || Date.now() - seen.read > ALL * 1000) {
    const since = RANGES[range].since;
    const usage = (of, from) => api(`user/usage?by=${of}&since=${from}&limit=1000`, { signal });
    const [credits, spans, models, used, own] = await Promise.all([
      api("user/credits", { signal }), usage(range, since), usage("model", since), usage("key", "90d"), api("user/keys", { signal }),
    ]);
    seen = { mark, read: Date.now(), by: range, credits, spans, models, used, own };
  }
  seen.status = status;
  seen.at = new Date();
}

// What is shown --------------------------------------------------------------------------------------

function build() {
  const choose = (value) => el("label", {}, el("input", { type: "radio", name: "range", value, checked: by === value, onchange: () => { by = value; watching.now(); } }), el("span", {}, t(value === "hour" ? "credits.hours" : "credits.days")));
  const part = (name, ...nodes) => el("section", { class: "card", "aria-labelledby": name.replace(".", "-") }, el("h2", { id: name.replace(".", "-") }, t(name)), ...nodes);
  page = {
    problem: el("div"), key: el("p", { class: "muted" }), live: el("p", { class: "hint live" }),
    balance: el("div", { class: "balance" }), today: el("dl", { class: "facts" }), limits: el("ul", { class: "gauges" }), budgets: el("ul", { class: "gauges" }),
    more: el("div", { class: "hint lines" }), plots: Array.from({ length: 4 }, () => new Plot()),
    spans: new Table("credits.as_table"), models: new Table("credits.by_model"), causes: new Table("credits.by_cause"), keys: new Table("credits.keys"),
  };
  fill(main, el("div", { class: "stack" },
    el("div", { class: "page-head" }, el("div", {}, el("h1", {}, t("credits.title")), page.key), page.live),
    page.problem,
    el("div", { class: "two" }, part("credits.balance", page.balance), part("credits.today", page.today)),
    el("div", { class: "two" }, part("credits.limits", page.limits, page.more), part("credits.budgets", page.budgets)),
    el("section", { class: "card", "aria-labelledby": "credits-usage" },
      el("div", { class: "section-head" }, el("h2", { id: "credits-usage" }, t("credits.usage")), el("fieldset", { class: "switch" }, el("legend", { class: "unseen" }, t("credits.range")), choose("hour"), choose("day"))),
      el("div", { class: "plots" }, page.plots.map((each) => each.node)),
      el("details", {}, el("summary", {}, t("credits.as_table")), page.spans.node),
      el("p", { class: "hint" }, t("credits.utc"))),
    part("credits.by_model", page.models.node),
    el("div", { class: "two" }, part("credits.by_cause", page.causes.node), part("credits.keys", page.keys.node))));
}

function draw() {
  if (!seen?.status) return;
  const { status } = seen;
  page.live.textContent = t("credits.live", { time: seen.at.toLocaleTimeString() });
  fill(page.key, status.key.name || t("credits.unnamed"), " · ", el("span", { class: "code" }, status.key.account));
  drawBalance(status, seen.credits);
  drawLimits(status);
  drawUsage();
  drawKeys(status);
}

function drawBalance(status, credits) {
  const free = status.credits === null;
  const held = free ? 0 : credits.credits_remaining - status.credits;
  fill(page.balance,
    el("p", { class: "figure" }, free ? t("unlimited") : number(status.credits), !free && el("span", { class: "unit" }, ` ${t("credits.of_credits")}`)),
    el("p", { class: "muted" }, t("credits.consumed", { n: number(credits.credits_consumed) })),
    held > 0 && el("p", { class: "muted" }, t("credits.reserved", { n: number(held) })),
    credits.expiring.map((each) => el("p", { class: "muted" }, t("credits.expiring", { n: number(each.credits) }), " ", when(each.expires_at))));
  const used = status.used_today;
  const fact = (name, ...value) => el("div", {}, el("dt", {}, t(name)), el("dd", {}, ...value));
  fill(page.today,
    fact("credits.requests", number(used.requests)),
    fact("credits.tokens", number(used.tokens)),
    fact("credits.cost", money(used.cost_usd)),
    fact("credits.last", when(status.last_request_at)));
}

function drawLimits(status) {
  const gauges = status.limits.filter((each) => each.limit !== null).map((each) => meter({
    name: t(`credits.window.${each.window}`), text: t("credits.left", { left: number(each.remaining), limit: number(each.limit) }),
    share: each.limit ? each.remaining / each.limit : 0, tight: each.remaining <= each.limit / 10,
    detail: each.remaining < each.limit && [t("credits.resets"), " ", when(each.resets_at)],
  }));
  fill(page.limits, gauges.length ? gauges : el("li", { class: "muted" }, t("credits.no_limits")));
  const { key: own } = status;
  fill(page.more,
    own.in_flight && el("p", {}, t("credits.in_flight", { n: number(own.in_flight) })),
    own.tokens && el("p", {}, t("credits.most_tokens", { n: number(own.tokens) })),
    own.models.length > 0 && el("p", {}, t("credits.models", { names: own.models.join(", ") })),
    own.expires_at && el("p", {}, t("credits.expires"), " ", when(own.expires_at)));
  const amount = (each, value) => (each.unit === "usd" ? money(value) : number(value));
  const budgets = status.budgets.map((each) => meter({
    name: t("credits.budget", { unit: t(`credits.unit.${each.unit}`), period: t(`credits.period.${each.period}`), scope: t(`credits.scope.${each.scope}`) }),
    text: t("credits.spent", { spent: amount(each, each.spent), limit: amount(each, each.limit) }),
    share: each.limit ? each.spent / each.limit : 1, tight: each.spent >= each.limit * 0.9,
    detail: each.resets_at && [t("credits.resets"), " ", when(each.resets_at)],
  }));
  fill(page.budgets, budgets.length ? budgets : el("li", { class: "muted" }, t("credits.no_budgets")));
}

function drawUsage() {
  const { by: shown, spans, models } = seen;
  const { step, times, rows } = filled(spans.data, shown, RANGES[shown].count);
  const sum = spans.total;
  const share = (row) => (row.input ? row.cached / row.input : 0);
  const fresh = rows.map((row) => (row.input ?? 0) - (row.cached ?? 0));
  const draw = (at, title, total, format, series, values, most) => page.plots[at].show({ title: t(title), total, times, step, format, series: series.map(([name, colour]) => ({ name: t(name), colour })), values, most });
  draw(0, "credits.requests", number(sum.requests + sum.errors + sum.free), short, [["credits.answered", "accent"], ["credits.free", "second"], ["credits.errors", "bad"]], [column(rows, "requests"), column(rows, "free"), column(rows, "errors")]);
  draw(1, "credits.tokens", number(sum.input + sum.output), short, [["credits.cached", "second"], ["credits.fresh", "accent"], ["credits.output", "third"]], [column(rows, "cached"), fresh, column(rows, "output")]);
  draw(2, "credits.cost", money(sum.cost_usd), money, [["credits.cost", "accent"]], [column(rows, "cost_usd")]);
  draw(3, "credits.share", percent(share(sum)), percent, [["credits.share", "second"]], [rows.map(share)], 1);
  const counts = [["credits.answered", "requests"], ["credits.errors", "errors"], ["credits.free", "free"], ["credits.input", "input"], ["credits.cached", "cached"], ["credits.output", "output"], ["credits.credits", "credits"]];
  const columns = (first) => [{ title: t(first) }, ...counts.map(([name]) => ({ title: t(name), number: true })), { title: t("credits.cost"), number: true }, { title: t("credits.share"), number: true }];
  const cells = (row) => [...counts.map(([, name]) => number(row[name])), money(row.cost_usd), percent(share(row))];
  page.spans.fill(columns("credits.time"), spans.data.map((row) => [String(row[shown]).replace("T", " ").replace(/:00Z$/, ""), ...cells(row)]), t("credits.nothing"));
  page.models.fill(columns("credits.model"), models.data.map((row) => [row.model || t("none"), ...cells(row)]), t("credits.nothing"));
  page.causes.fill([{ title: t("credits.cause") }, { title: t("credits.errors"), number: true }],
    Object.entries(sum.causes).sort((one, other) => other[1] - one[1]).map(([cause, errors]) => [told(`cause.${cause}`, cause), number(errors)]), t("credits.no_errors"));
}

function drawKeys(status) {
  const rows = new Map(seen.own.data.map((each) => [each.id, { name: each.name, last: null, requests: 0, cost_usd: 0 }]));
  for (const row of seen.used.data) rows.set(row.key, { name: row.key_name, last: row.last, requests: row.requests + row.errors + row.free, cost_usd: row.cost_usd });
  const named = (id, name) => el("span", {}, name || t("credits.unnamed"), id === status.key.id && el("span", { class: "tag" }, t("credits.this_key")), el("span", { class: "code muted block" }, id));
  page.keys.fill([{ title: t("credits.key") }, { title: t("credits.last_use") }, { title: t("credits.requests"), number: true }, { title: t("credits.cost"), number: true }],
    [...rows].map(([id, row]) => [named(id, row.name), when(row.last), number(row.requests), money(row.cost_usd)]), t("none"));
}

// Life -----------------------------------------------------------------------------------------------

function watch() {
  build();
  fill(page.problem, el("p", { class: "muted" }, t("loading")));
  watching?.stop();
  watching = poll(async (signal) => {
    try {
      await look(signal);
      fill(page.problem);
      draw();
    } catch (error) {
      if (signal.aborted) throw error;
      if (error.status === 401) return ask(error);
      fill(page.problem, alertOf(error, true));
      throw error;
    }
  }, EVERY);
}

function ask(error) {
  watching?.stop();
  seen = null;
  if (error) useKey(null);
  fill(main, keyForm({ title: t("credits.enter"), check: (given) => api("user/status", { as: given }), used: watch }), error && alertOf(error));
}

start("credits", words, () => ask());
onLanguage(() => {
  if (!key()) return ask();
  build();
  draw();
});
if (key()) watch();
else ask();
