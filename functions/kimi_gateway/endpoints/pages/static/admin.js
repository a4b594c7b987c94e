import { forms } from "./admin-forms.js";
import { Plot, column, filled } from "./plot.js";
import { alertOf, api, ApiError, el, fill, key, keyForm, money, moment, number, onLanguage, percent, poll, span, start, t, told, useKey, when } from "./shell.js";
import { Table } from "./tables.js";
import words from "./words/admin.js";
import more from "./words/credits.js";

const SECTIONS = ["overview", "accounts", "pool", "requests"];
const FILTERS = ["key", "status", "cause", "model"];
const SHOWN = 50; // accounts at first
const MOST = 5; // pages of 1,000 accounts that are read
const PAGE = 1_000;
const main = document.querySelector("main");

let watching = null, page = null, seen = {}, wanted = {}, found = "", shown = SHOWN;
const section = () => (SECTIONS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "overview");
const nameOf = (id) => seen.names?.get(id);
const title = (name, id) => el("span", {}, name || t("admin.unnamed"), el("span", { class: "code muted block" }, id));

/** All entries of a list, page by page. */
async function all(path, signal) {
  const entries = [];
  for (let at = 0, after = ""; at < MOST; at++) {
    const read = await api(`${path}?limit=${PAGE}${after}`, { signal });
    entries.push(...read.data);
    if (!read.has_more) return entries;
    after = `&after=${encodeURIComponent(read.next)}`;
  }
  return Object.assign(entries, { cut: true });
}

const read = {
  async overview(signal) {
    const usage = (by) => api(`admin/usage?by=${by}&since=30d&limit=1000`, { signal });
    const [problems, days, keys, models] = await Promise.all([api("admin/problems", { signal }), usage("day"), usage("key"), usage("model")]);
    Object.assign(seen, { problems: problems.data, days, keys, models });
  },
  async accounts(signal) {
    const [accounts, keys] = await Promise.all([all("admin/accounts", signal), all("admin/keys", signal)]);
    seen.accounts = accounts;
    seen.cut = accounts.cut || keys.cut;
    seen.byAccount = Map.groupBy ? Map.groupBy(keys, (each) => each.account) : keys.reduce((map, each) => map.set(each.account, [...(map.get(each.account) ?? []), each]), new Map());
  },
  async pool(signal) {
    seen.pool = (await api("admin/pool", { signal })).data;
  },
  async requests(signal) {
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    seen.requests = (await api(`admin/requests?limit=200&${query}`, { signal })).data;
  },
};

const card = (name, ...nodes) => el("section", { class: "card" }, el("h2", {}, t(name)), ...nodes);

const build = {
  overview() {
    page.problems = el("ul", { class: "problems" });
    page.plot = new Plot();
    page.keys = new Table("admin.by_key");
    page.models = new Table("admin.by_model");
    return [card("admin.problems", page.problems, el("p", { class: "hint" }, t("admin.more_problems"))), card("admin.spending", page.plot.node), card("admin.by_key", page.keys.node), card("admin.by_model", page.models.node)];
  },
  accounts() {
    page.list = el("div", { class: "stack" });
    const find = el("input", { type: "search", id: "find", value: found, oninput: () => { found = find.value; shown = SHOWN; draw.accounts(); } });
    return [el("div", { class: "row" }, el("div", { class: "grow" }, el("label", { for: "find", class: "block" }, t("admin.find")), find),
      el("button", { type: "button", class: "primary", onclick: () => forms.account(refresh) }, t("admin.new_account"))), page.list];
  },
  pool() {
    page.list = el("div", { class: "stack" });
    const ask = el("button", { type: "button", onclick: async () => {
      ask.disabled = true;
      try {
        seen.pool = (await api("admin/pool?balance=now")).data;
        draw.pool();
      } catch (error) {
        fill(page.problem, alertOf(error));
      }
      ask.disabled = false;
    } }, t("admin.ask_balance"));
    return [el("div", { class: "row end" }, ask), page.list];
  },
  requests() {
    page.requests = new Table("admin.requests");
    const entry = (name) => el("div", {}, el("label", { class: "block", for: `by-${name}` }, t(`admin.${name}`)), el("input", { id: `by-${name}`, name, value: wanted[name] ?? "", autocomplete: "off" }));
    const form = el("form", { class: "row filters", onsubmit: (event) => {
      event.preventDefault();
      wanted = Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value.trim()]));
      watching.now();
    } }, FILTERS.map(entry), el("button", { type: "submit" }, t("admin.filter")));
    return [form, el("section", { class: "card" }, page.requests.node, el("p", { class: "hint" }, t("admin.only_here")))];
  },
};

const draw = {
  overview() {
    const { problems, days, keys, models } = seen;
    fill(page.problems, problems.length ? problems.map((each) => el("li", { class: each.status === "FAIL" ? "bad" : "warn" }, el("strong", {}, each.name), " ", each.detail, each.fix && el("span", { class: "hint block" }, t("admin.fix", { fix: each.fix })))) : el("li", { class: "good" }, t("admin.no_problems")));
    const spans = filled(days.data, "day", 30);
    page.plot.show({ title: t("admin.cost"), total: money(days.total.cost_usd), times: spans.times, step: spans.step, format: money, series: [{ name: t("admin.cost"), colour: "accent" }], values: [column(spans.rows, "cost_usd")] });
    const cells = (row) => [number(row.requests), number(row.errors), number(row.input + row.output), percent(row.input ? row.cached / row.input : 0), money(row.cost_usd)];
    const columns = (name) => [{ title: t(name) }, ...["admin.count", "admin.errors", "admin.tokens", "credits.share", "admin.cost"].map((each) => ({ title: t(each), number: true }))];
    const costly = (rows) => [...rows].sort((one, other) => other.cost_usd - one.cost_usd || other.requests - one.requests).slice(0, 50);
    page.keys.fill(columns("admin.key"), costly(keys.data).map((row) => [title(row.key_name, row.key), ...cells(row)]), t("admin.nothing"));
    page.models.fill(columns("admin.model"), costly(models.data).map((row) => [row.model || t("none"), ...cells(row)]), t("admin.nothing"));
  },
  accounts() {
    const text = found.toLowerCase();
    const fits = (each) => [each.id, each.name, ...(seen.byAccount.get(each.id) ?? []).flatMap((one) => [one.id, one.name])].some((word) => word.toLowerCase().includes(text));
    const matching = seen.accounts.filter(fits);
    fill(page.list, seen.cut && el("p", { class: "alert" }, t("admin.most", { n: number(MOST * PAGE) })), matching.slice(0, shown).map(accountCard), matching.length === 0 && el("p", { class: "muted" }, t("admin.nothing")),
      matching.length > shown && el("button", { type: "button", onclick: () => { shown += SHOWN; draw.accounts(); } }, t("admin.more", { n: matching.length - shown })));
  },
  pool() {
    const states = (each) => each.outages.map((out) => el("div", {}, told(`cause.${out.cause}`, out.cause), " ", out.model && t("admin.for_model", { model: out.model }), el("span", { class: "hint block" }, t("admin.next_try", { time: moment(out.next_try) }))));
    fill(page.list, seen.pool.map((each) => {
      const table = new Table("admin.pool");
      table.fill([{ title: t("admin.token") }, { title: t("admin.state") }, { title: t("admin.cause") }, { title: t("admin.running"), number: true }, { title: t("admin.balance"), number: true }],
        each.tokens.map((token) => [el("span", { class: "code" }, token.id), el("span", { class: `state ${token.state}` }, t(`admin.${token.state}`)), token.outages.length ? states(token) : "–", number(token.in_flight), token.balance ? number(token.balance.available_balance ?? 0) : t("admin.unknown")]), t("admin.no_tokens"));
      return el("section", { class: "card" }, el("h2", {}, each.provider), table.node);
    }));
  },
  requests() {
    page.requests.fill([{ title: t("admin.time") }, { title: t("admin.key") }, { title: t("admin.model") }, { title: t("admin.status") }, { title: t("admin.cause") }, { title: t("admin.tokens"), number: true }, { title: t("admin.cost"), number: true }, { title: t("admin.duration"), number: true }],
      seen.requests.map((each) => [el("span", { title: each.id }, moment(each.at), el("span", { class: "code muted block" }, each.route ?? each.path)), each.key ? title(nameOf(each.key) ?? "", each.key) : "–", each.model ?? "–", String(each.status), each.cause ?? "–", each.input_tokens === undefined ? "–" : `${number(each.input_tokens)} → ${number(each.output_tokens ?? 0)}`, each.cost_usd === undefined ? "–" : money(each.cost_usd), each.total_ms < 1000 ? `${Math.round(each.total_ms)} ms` : span(each.total_ms / 1000)]), t("admin.nothing"));
  },
};

function accountCard(account) {
  const keys = seen.byAccount.get(account.id) ?? [];
  const table = new Table("admin.accounts");
  const act = (name, of, step) => el("button", { type: "button", class: "quiet", "data-slot": `${name.replace("resume", "suspend")} ${of.id}`, "aria-label": t("admin.of", { action: t(name), name: of.name || of.id }), onclick: () => Promise.resolve(step()).catch((error) => fill(page.problem, alertOf(error))) }, t(name));
  const limits = (each) => [...Object.entries(each.limits), ["tokens", each.tokens], ["in flight", each.in_flight], ...Object.entries(each.budgets)].filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value}`).join(", ") || t("none");
  const row = (each) => [
    el("span", {}, title(each.name, each.id), each.role === "operator" && el("span", { class: "tag" }, t("admin.operator")), each.note && el("span", { class: "hint block" }, each.note)),
    el("span", { class: `state ${each.state}` }, t(`admin.state.${each.state}`)), limits(each), when(each.last_used),
    each.revoked ? "–" : el("div", { class: "actions" }, act(each.suspended ? "admin.resume" : "admin.suspend", each, () => forms.suspend(each, refresh)), act("admin.change", each, () => forms.changeKey(each, refresh)), act("admin.rotate", each, () => forms.rotate(each, refresh)), act("admin.revoke", each, () => forms.revoke(each, refresh))),
  ];
  table.fill([{ title: t("admin.key") }, { title: t("admin.state") }, { title: t("admin.limits") }, { title: t("admin.last_use") }, { title: t("admin.actions") }], keys.map(row), t("admin.nothing"));
  const budgets = Object.entries(account.budgets).map(([name, limit]) => `${name} ${limit}`).join(", ");
  return el("section", { class: "card account" },
    el("div", { class: "section-head" }, el("div", {}, el("h2", {}, account.name || t("admin.unnamed")), el("p", { class: "code muted" }, account.id)),
      el("div", { class: "actions" }, act("admin.new_key", account, () => forms.key(account, refresh)), ["grant", "deduct", "change", "delete"].map((name) => act(`admin.${name}`, account, () => forms[name === "change" || name === "delete" ? `${name}Account` : name](account, refresh))))),
    el("p", {}, account.unlimited ? t("unlimited") : t("admin.left", { n: number(account.credits), used: number(account.consumed) })),
    budgets && el("p", { class: "muted" }, t("admin.budgets_are", { budgets })),
    table.node);
}

function refresh() {
  watching?.now();
}

function open() {
  if (!key()) return ask();
  watching?.stop();
  const name = section();
  page = { problem: el("div"), live: el("p", { class: "hint" }) };
  const body = el("div", { class: "stack" });
  fill(main, el("div", { class: "stack" },
    el("div", { class: "page-head" }, el("h1", {}, t("admin.title")), page.live),
    el("nav", { class: "tabs", "aria-label": t("admin.sections") }, SECTIONS.map((each) => el("a", { href: `#${each}`, "aria-current": each === name ? "true" : null }, t(`admin.${each}`)))),
    page.problem, body));
  fill(body, ...build[name]());
  watching = poll(async (signal) => {
    try {
      await read[name](signal);
      if (!seen.names && name === "requests") seen.names = new Map((await all("admin/keys", signal)).map((each) => [each.id, each.name]));
      fill(page.problem);
      page.live.textContent = t("admin.live", { time: new Date().toLocaleTimeString() });
      draw[name]();
    } catch (error) {
      if (signal.aborted) throw error;
      if (error.status === 401) return ask(error);
      fill(page.problem, alertOf(explained(error), true));
      throw error;
    }
  }, name === "accounts" ? 60 : 10);
}

function explained(error) {
  if (error.status === 404) return new ApiError(404, t("admin.off"));
  return error.status === 403 ? new ApiError(403, t("admin.not_operator")) : error;
}

function ask(error) {
  watching?.stop();
  seen = {};
  if (error) useKey(null);
  const check = (given) => api("admin/keys?limit=1", { as: given }).catch((refused) => { throw explained(refused); });
  fill(main, keyForm({ title: t("admin.enter"), hint: t("admin.hint"), check, used: open }), error && alertOf(error));
}

start("admin", { en: { ...more.en, ...words.en }, zh: { ...more.zh, ...words.zh } }, () => ask());
onLanguage(open);
addEventListener("hashchange", open);
open();
