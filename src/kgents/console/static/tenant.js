// What a tenant sees of itself. Each section stands alone: one that the key may not read is not shown.
import { ANSWER, find, get, request } from "./api.js";
import { METERS, byId, element, fill, invoices, payment, subscribed, when } from "./view.js";

const table = (id) => byId(id).querySelector("table");

async function health() {
  // It answers 503 where something is away, and says what.
  const found = await (await fetch("/health/saas", { signal: AbortSignal.timeout(ANSWER) })).json();
  fill(table("health"), [
    ["Component", (c) => c[0]], ["Status", (c) => c[1].status, "status"], ["Mode", (c) => c[1].mode],
    ["Latency, ms", (c) => c[1].latency_ms, "number"], ["Backlog", (c) => c[1].backlog, "number"],
    ["Detail", (c) => c[1].detail],
  ], Object.entries(found.components));
}

async function balance() {
  fill(table("balance"), [
    ["Meter", (m) => m.meter], ["Used", (m) => m.used, "number"], ["Reserved", (m) => m.reserved, "number"],
    ["Limit", (m) => m.limit, "number"], ["Remaining", (m) => m.remaining, "number"],
  ], (await get("/v1/usage/balance")).meters);
}

async function usage() {
  const models = new Map();
  for (const row of (await get("/v1/usage?window=month&group_by=model")).data) {
    models.set(row.model, { ...models.get(row.model), [row.meter]: row.quantity });
  }
  const columns = METERS.map((meter) => [meter, ([, sums]) => sums[meter] ?? 0, "number"]);
  fill(table("usage"), [["Model", ([model]) => model || "–"], ...columns], [...models].sort());
}

async function plan() {
  const found = await find("/v1/subscription");
  byId("plan-terms").textContent = subscribed(found);
  const upcoming = found && (await find("/v1/invoices/upcoming"));
  if (upcoming) invoices(byId("upcoming"), [upcoming]);
  else byId("upcoming").replaceChildren();
}

async function past() {
  const found = (await get("/v1/invoices?limit=100")).data;
  invoices(byId("invoice-list"), found, (each) => [each.status === "open" && payment(each.payment_url)].filter(Boolean));
}

async function agents() {
  const found = (await get("/v1/agents?limit=100")).data;
  fill(table("agents"), [
    ["Name", (a) => a.name], ["Model", (a) => a.model], ["Version", (a) => a.version, "number"],
    ["Updated, UTC", (a) => when(a.updated_at)],
  ], found);
  const chosen = byId("agent").value;
  byId("agent").replaceChildren(...found.map((a) => new Option(a.name, a.name, false, a.name === chosen)));
}

async function runs() {
  fill(table("runs"), [
    ["Run", (r) => r.id], ["Mode", (r) => r.mode], ["Status", (r) => r.status, "status"],
    ["Input", (r) => r.usage.input_tokens, "number"], ["Output", (r) => r.usage.output_tokens, "number"],
    ["Started, UTC", (r) => when(r.created_at)],
  ], (await get("/v1/runs?limit=20")).data);
}

// What could not be read again is shown as old, with the reason.
const readAt = new Map();
function say(id, error) {
  const section = byId(id);
  section.querySelector(":scope > .old")?.remove();
  section.classList.toggle("stale", Boolean(error));
  if (!error) readAt.set(id, new Date().toISOString());
  else section.append(element("p", `Not read since ${when(readAt.get(id)) ?? "the start"} UTC: ${error.message}`, { className: "old" }));
}

const OFTEN = { health, balance, runs };
const SELDOM = { usage, plan, invoices: past, agents };

async function show(sections) {
  await Promise.all(Object.entries(sections).map(async ([id, load]) => {
    try {
      await load();
      byId(id).hidden = false;
      say(id, null);
    } catch (error) {
      if (error.status === 401) throw error;
      byId(id).hidden = error.status === 403;
      say(id, error);
    }
  }));
  byId("chat").hidden = byId("agents").hidden;
}

export const now = () => show(OFTEN);
export const all = () => show({ ...OFTEN, ...SELDOM });

export async function chat(event) {
  event.preventDefault();
  const answer = byId("answer");
  answer.textContent = "";
  try {
    const response = await request("POST", "/v1/chat/completions", {
      model: byId("agent").value, stream: true, messages: [{ role: "user", content: byId("say").value }],
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: {")) continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        answer.append(chunk.choices?.[0]?.delta?.content || "");
      }
    }
  } catch (error) {
    answer.textContent = error.message;
  }
  await all();
}
