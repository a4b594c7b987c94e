// The dialogs of the operator's page: make, change and delete accounts and keys, grant, deduct, rotate.
import { alertOf, api, copyButton, el, fill, openDialog, t } from "./shell.js";

const LIMITS = ["rpm", "rph", "rpd", "in_flight", "tokens"];
const SWITCHES = ["search", "files", "see_balance", "manages"];

/** A dialog with a form; `send` gets its values, and those of the beginning, and throws ApiError to stay open. */
function dialog(title, fields, send, label = t("admin.save"), kind = "primary") {
  const problem = el("div");
  const button = el("button", { type: "submit", class: kind }, label);
  const box = el("dialog", { "aria-labelledby": "dialog-title" });
  const form = el("form", { novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const next = await send(values(), first);
      end();
      if (next) next();
    } catch (error) {
      if (error.status === 0) error.message += ` ${t("admin.unanswered")}`;
      fill(problem, alertOf(error));
      button.disabled = false;
    }
  } },
    el("h2", { id: "dialog-title" }, title), fields, problem,
    el("div", { class: "row end" }, el("button", { type: "button", onclick: () => end() }, t("cancel")), button));
  const values = () => Object.fromEntries([...form.elements].filter((each) => each.name).map((each) => [each.name, each.type === "checkbox" ? each.checked : each.value.trim()]));
  const first = values();
  box.append(form);
  const end = openDialog(box);
}

/** The members that the operator has changed: the others may be changed elsewhere meanwhile. */
const changes = (now, before) => Object.fromEntries(Object.entries(now).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));

/** `offered` are values to choose from, with what they mean. */
function field(name, label, value = "", hint, offered) {
  return el("div", { class: "field" }, el("label", { for: `f-${name}` }, label),
    el("input", { id: `f-${name}`, name, autocomplete: "off", value, "aria-describedby": hint ? `h-${name}` : null, list: offered ? `o-${name}` : null }),
    offered && el("datalist", { id: `o-${name}` }, offered.map(([value, label]) => el("option", { value, label }))),
    hint && el("p", { class: "hint", id: `h-${name}` }, hint));
}

const check = (name, on) => el("label", { class: "check" }, el("input", { type: "checkbox", name, checked: on }), t(`admin.${name}`));
const listed = (budgets) => Object.entries(budgets).map(([name, limit]) => `${name}=${limit}`).join(", ");
const wrongNumber = (text) => (text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));

function budgetsOf(text) {
  return Object.fromEntries(text.split(/[,\n]/).map((each) => each.trim()).filter(Boolean).map((each) => {
    const [name, limit] = each.split("=");
    return [name.trim(), wrongNumber((limit ?? "").trim())];
  }));
}

const creditsOf = (text) => (text === "" ? null : text === "unlimited" ? text : wrongNumber(text));

function keyFields(key) {
  const number = (name, value) => field(name, t(name === "tokens" ? "admin.most_tokens" : `admin.${name}`), value ?? "", null);
  const of = (name) => (["rpm", "rph", "rpd"].includes(name) ? key?.limits[name] : key?.[name]);
  return [
    el("div", { class: "fields" }, LIMITS.map((name) => number(name, of(name)))),
    field("models", t("admin.models"), key ? key.models.join(", ") : ""),
    field("budgets", t("admin.budgets"), key ? listed(key.budgets) : "", t("admin.budgets_hint")),
    el("div", { class: "fields" }, field("expires", t("admin.expires"), key?.expires?.replace("T00:00:00Z", "") ?? ""), field("note", t("admin.note"), key?.note ?? "")),
    el("div", { class: "checks" }, SWITCHES.map((name) => check(name, key ? key[name] : name === "search" || name === "files"))),
  ];
}

function termsOf(values) {
  return {
    name: values.name, note: values.note, expires: values.expires || null, budgets: budgetsOf(values.budgets),
    models: values.models.split(",").map((each) => each.trim()).filter(Boolean),
    ...Object.fromEntries(LIMITS.map((name) => [name, wrongNumber(values[name])])),
    ...Object.fromEntries(SWITCHES.map((name) => [name, values[name]])),
  };
}

/** A secret, shown this one time. */
function secret(text) {
  const box = el("dialog", { "aria-labelledby": "dialog-title" },
    el("h2", { id: "dialog-title" }, t("admin.secret")), el("p", {}, t("admin.once")),
    el("p", { class: "code secret" }, text),
    el("div", { class: "row end" }, copyButton(text), el("button", { type: "button", class: "primary", onclick: () => end() }, t("close"))));
  const end = openDialog(box);
}

const named = (action, name) => t("admin.of", { action: t(action), name: name || t("admin.unnamed") });
const path = (kind, id, step = "") => `admin/${kind}/${encodeURIComponent(id)}${step}`;

/** Each opens a dialog; `done` runs after a change. */
export const forms = {
  account(done) {
    dialog(t("admin.new_account"), [field("name", t("admin.name")), field("credits", t("admin.credits"), "", t("admin.credits_hint"))],
      async (values) => { await api("admin/accounts", { method: "POST", body: { name: values.name, credits: creditsOf(values.credits) } }); return done; });
  },
  changeAccount(account, done) {
    dialog(named("admin.change", account.name), [field("name", t("admin.name"), account.name), field("budgets", t("admin.budgets"), listed(account.budgets), t("admin.budgets_hint"))],
      async (...both) => {
        const [now, before] = both.map((values) => ({ name: values.name, budgets: budgetsOf(values.budgets) }));
        await api(path("accounts", account.id), { method: "PATCH", body: changes(now, before) });
        return done;
      });
  },
  async grant(account, done) {
    const { data } = await api("admin/packages");
    const packages = data.map(({ name, credits, months }) => [name, t(months ? "admin.package_months" : "admin.package_credits", { credits, months })]);
    dialog(named("admin.grant", account.name), [field("credits", t("admin.credits")), field("expires", t("admin.expires")), field("package", t("admin.package"), "", packages.map(([name]) => name).join(", "), packages)],
      async (values) => {
        const bought = values.package && { package: values.package };
        const given = bought && !values.credits ? bought : { credits: wrongNumber(values.credits), expires: values.expires || null, ...bought };
        await api(path("accounts", account.id, "/grant"), { method: "POST", body: given });
        return done;
      });
  },
  deduct(account, done) {
    dialog(named("admin.deduct", account.name), [field("credits", t("admin.credits"))],
      async (values) => { await api(path("accounts", account.id, "/deduct"), { method: "POST", body: { credits: wrongNumber(values.credits) } }); return done; });
  },
  deleteAccount(account, done) {
    const name = account.name || account.id;
    dialog(named("admin.delete", account.name), [el("p", {}, t("admin.delete_sure")), field("name", t("admin.delete_name", { name }))],
      async (values) => {
        if (values.name !== name.trim()) throw new Error(t("admin.delete_other"));
        await api(path("accounts", account.id), { method: "DELETE" });
        return done;
      }, t("admin.delete"), "danger");
  },
  key(account, done) {
    dialog(named("admin.new_key", account.name || account.id), [field("name", t("admin.name")), ...keyFields()],
      async (values) => {
        const made = await api("admin/keys", { method: "POST", body: { account: account.id, ...termsOf(values) } });
        return () => { secret(made.key); done(); };
      });
  },
  changeKey(key, done) {
    dialog(named("admin.change", key.name), [field("name", t("admin.name"), key.name), ...keyFields(key)],
      async (...both) => { await api(path("keys", key.id), { method: "PATCH", body: changes(...both.map(termsOf)) }); return done; });
  },
  rotate(key, done) {
    dialog(named("admin.rotate", key.name), [field("overlap", t("admin.overlap"), "24h")],
      async (values) => {
        const made = await api(path("keys", key.id, "/rotate"), { method: "POST", body: { overlap: values.overlap } });
        return () => { secret(made.key); done(); };
      }, t("admin.rotate"));
  },
  revoke(key, done) {
    dialog(named("admin.revoke", key.name), [el("p", {}, t("admin.sure"))], async () => { await api(path("keys", key.id), { method: "DELETE" }); return done; }, t("admin.revoke"), "danger");
  },
  async suspend(key, done) {
    await api(path("keys", key.id, key.suspended ? "/resume" : "/suspend"), { method: "POST", body: {} });
    done();
  },
};
