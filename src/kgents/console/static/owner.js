// What a platform administrator sees and does: tenants, what they are subscribed to, their invoices, and plans.
import { find, get, request } from "./api.js";
import { METERS, byId, count, element, fill, invoices, money, prices, subscribed, when } from "./view.js";

const tenants = [];
let chosen = null;
let plans = [];

// Do something, and show `then` what may be another now; whatever is refused is said in the section.
function doing(section, work, then = refresh) {
  return async (event) => {
    event?.preventDefault();
    const said = byId(section).querySelector(".refused");
    said.textContent = "";
    try {
      await work(event);
      await then();
    } catch (error) {
      said.textContent = error.message;
    }
  };
}

async function list(path) {
  const found = [];
  for (let after = "", more = true; more;) {
    const page = await get(`${path}?limit=100&after=${encodeURIComponent(after)}`);
    found.push(...page.data);
    after = page.data.at(-1)?.id;
    more = page.has_more;
  }
  return found;
}

async function moreTenants() {
  const page = await get(`/v1/tenants?limit=50&after=${encodeURIComponent(tenants.at(-1)?.id ?? "")}`);
  tenants.push(...page.data);
  byId("more-tenants").hidden = !page.has_more;
}

function showTenants() {
  fill(byId("tenants").querySelector("table"), [
    ["Name", (t) => t.name], ["Id", (t) => t.id], ["Status", (t) => t.status, "status"],
    ["Since, UTC", (t) => when(t.created_at)],
    ["", (t) => {
      const open = element("button", "Open", { onclick: doing("chosen", () => { chosen = t; }, showChosen) });
      open.setAttribute("aria-label", `Open ${t.name}`);
      return open;
    }],
  ], tenants);
}

async function showChosen() {
  byId("chosen").hidden = !chosen;
  if (!chosen) return;
  const path = `/v1/tenants/${encodeURIComponent(chosen.id)}`;
  const subscription = await find(`${path}/subscription`);
  byId("chosen-title").textContent = chosen.name;
  byId("chosen-plan").textContent = subscribed(subscription);
  byId("unsubscribe").hidden = !subscription;
  const becomes = (invoice, status) => element("button", `Mark as ${status}`, {
    onclick: doing("chosen", async () => {
      if (!confirm(`Mark the invoice of ${invoice.period} as ${status}? Its usage and amounts stay as they are.`)) return;
      await request("PATCH", `${path}/invoices/${encodeURIComponent(invoice.id)}`, { status });
    }),
  });
  const found = (await get(`${path}/invoices?limit=100`)).data;
  invoices(byId("chosen-invoices"), found, (invoice) => {
    if (invoice.stripe_id) return [element("span", `at Stripe as ${invoice.stripe_id}`)];
    return invoice.status === "open" ? ["paid", "uncollectible", "void"].map((each) => becomes(invoice, each)) : [];
  });
}

function showPlans() {
  fill(byId("plans").querySelector("table"), [
    ["Name", (p) => p.name], ["Fee a month", (p) => money(p.monthly_fee, p.currency), "number"],
    ["Prices", (p) => prices(p), "text"],
    ["Quotas", (p) => Object.entries(p.quotas).map(([meter, limit]) => `${meter} ${count(limit)}`).join("; "), "text"],
    ["Status", (p) => (p.archived_at ? "archived" : "offered"), "status"],
    ["", (p) => (p.archived_at ? "" : element("button", "Archive", {
      onclick: doing("plans", async () => {
        if (!confirm(`Offer ${p.name} no more? Who is on it stays on it.`)) return;
        await request("DELETE", `/v1/plans/${encodeURIComponent(p.id)}`);
      }),
    }))],
  ], plans);
  const offered = plans.filter((each) => !each.archived_at);
  const before = byId("subscribe-plan").value;
  byId("subscribe-plan").replaceChildren(...offered.map((p) => new Option(p.name, p.id, false, p.id === before)));
}

async function showRevenue() {
  fill(byId("revenue").querySelector("table"), [
    ["Month", (r) => r.period], ["Status", (r) => r.status, "status"], ["Invoices", (r) => r.invoices, "number"],
    ["Amount", (r) => money(r.amount, r.currency), "number"],
  ], (await get("/v1/revenue")).data.reverse());
}

function addPrice() {
  const field = (label, properties) => {
    const input = element(properties.options ? "select" : "input", "", properties.options ? {} : properties);
    input.name = properties.name;
    if (properties.options) input.append(...properties.options.map((each) => new Option(each)));
    const cell = element("td");
    const around = element("label", `${label} `);
    around.append(input);
    cell.append(around);
    return cell;
  };
  const whole = { type: "number", step: "1", required: true };
  const row = element("tr");
  const remove = element("button", "Remove", { type: "button", onclick: () => row.remove() });
  row.append(
    field("Meter", { name: "meter", options: METERS }),
    field("Model", { name: "model", placeholder: "all others", size: 14 }),
    field("Amount, in minor units", { ...whole, name: "amount", min: "0" }),
    field("For so many", { ...whole, name: "per", min: "1", value: "1" }),
    field("Included", { ...whole, name: "included", min: "0", value: "0" }),
    remove,
  );
  byId("new-prices").tBodies[0].append(row);
}

async function createPlan(event) {
  const form = event.target;
  const given = (row, name) => row.querySelector(`[name=${name}]`).value.trim();
  const created = [...byId("new-prices").tBodies[0].rows].map((row) => ({
    meter: given(row, "meter"), model: given(row, "model") || null,
    amount: Number(given(row, "amount")), per: Number(given(row, "per")), included: Number(given(row, "included")),
  }));
  const quotas = METERS.map((meter) => [meter, given(form, meter)]).filter(([, limit]) => limit !== "");
  await request("POST", "/v1/plans", {
    name: given(form, "name"), currency: given(form, "currency"), monthly_fee: Number(given(form, "monthly_fee")),
    prices: created, quotas: Object.fromEntries(quotas.map(([meter, limit]) => [meter, Number(limit)])),
  });
  form.reset();
  byId("new-prices").tBodies[0].replaceChildren();
}

export async function refresh() {
  plans = await list("/v1/plans");
  showPlans();
  await Promise.all([showRevenue(), showChosen()]);
}

// Show it, where the key is a platform administrator's.
export async function begin() {
  try {
    await refresh();
  } catch (error) {
    if (error.status === 403) return false;
    throw error;
  }
  await moreTenants();
  showTenants();
  byId("owner").hidden = false;
  return true;
}

for (const meter of METERS) {
  const label = element("label", `${meter} `);
  label.append(element("input", "", { name: meter, type: "number", min: "0", step: "1" }));
  byId("new-quotas").append(label);
}
byId("more-tenants").addEventListener("click", doing("tenants", moreTenants, showTenants));
byId("add-price").addEventListener("click", addPrice);
byId("new-plan").addEventListener("submit", doing("plans", createPlan));
byId("subscribe").addEventListener("submit", doing("chosen", async () => {
  await request("PUT", `/v1/tenants/${encodeURIComponent(chosen.id)}/subscription`, { plan: byId("subscribe-plan").value });
}));
byId("unsubscribe").addEventListener("click", doing("chosen", async () => {
  if (!confirm(`End the subscription of ${chosen.name} now? Its quotas are 0 from then on.`)) return;
  await request("DELETE", `/v1/tenants/${encodeURIComponent(chosen.id)}/subscription`);
}));
