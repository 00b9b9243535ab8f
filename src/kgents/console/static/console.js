"use strict";
const byId = (id) => document.getElementById(id);
const KEY = "kgents-key";
let timer = 0;

async function api(path, options = {}) {
  const response = await fetch(path, {
    ...options,
    headers: { Authorization: `Bearer ${sessionStorage.getItem(KEY)}`, "Content-Type": "application/json" },
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail || problem.error?.message || `The API answered ${response.status}.`);
  }
  return response;
}

// Cells are text nodes: nothing that a tenant wrote is ever read as markup.
function fill(id, columns, rows) {
  const table = byId(id);
  table.replaceChildren();
  const head = table.insertRow();
  for (const [title, , kind] of columns) {
    const cell = document.createElement("th");
    cell.textContent = title;
    if (kind === "number") cell.className = "number";
    head.append(cell);
  }
  for (const row of rows) {
    const line = table.insertRow();
    for (const [, value, kind] of columns) {
      const cell = line.insertCell();
      const shown = value(row);
      cell.textContent = shown === null || shown === undefined ? "–" : String(shown);
      if (kind === "number") cell.className = "number";
      if (kind === "status") {
        const good = ["connected", "completed", "running", "queued"];
        cell.className = good.includes(shown) ? "good" : shown === "not_configured" ? "" : "bad";
      }
    }
  }
}

async function refresh() {
  const health = await (await fetch("/health/saas")).json();
  fill("health", [
    ["Component", (c) => c[0]], ["Status", (c) => c[1].status, "status"], ["Mode", (c) => c[1].mode],
    ["Latency, ms", (c) => c[1].latency_ms, "number"], ["Backlog", (c) => c[1].backlog, "number"],
    ["Detail", (c) => c[1].detail],
  ], Object.entries(health.components));
  const balance = await (await api("/v1/usage/balance")).json();
  fill("balance", [
    ["Meter", (m) => m.meter], ["Used", (m) => m.used, "number"], ["Reserved", (m) => m.reserved, "number"],
    ["Limit", (m) => m.limit, "number"], ["Remaining", (m) => m.remaining, "number"],
  ], balance.meters);
  const agents = (await (await api("/v1/agents?limit=100")).json()).data;
  fill("agents", [
    ["Name", (a) => a.name], ["Model", (a) => a.model], ["Version", (a) => a.version, "number"],
    ["Updated", (a) => a.updated_at],
  ], agents);
  const chosen = byId("agent").value;
  byId("agent").replaceChildren(...agents.map((a) => new Option(a.name, a.name, false, a.name === chosen)));
  const runs = (await (await api("/v1/runs?limit=20")).json()).data;
  fill("runs", [
    ["Run", (r) => r.id], ["Mode", (r) => r.mode], ["Status", (r) => r.status, "status"],
    ["Input", (r) => r.usage.input_tokens, "number"], ["Output", (r) => r.usage.output_tokens, "number"],
    ["Started", (r) => r.created_at],
  ], runs);
}

async function chat(event) {
  event.preventDefault();
  const answer = byId("answer");
  answer.textContent = "";
  try {
    const response = await api("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({
        model: byId("agent").value, stream: true, messages: [{ role: "user", content: byId("say").value }],
      }),
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
  await refresh();
}

async function signIn() {
  const tenant = await (await api("/v1/tenant")).json();
  byId("tenant").textContent = tenant.name;
  byId("sign-in").hidden = true;
  byId("signed-in").hidden = byId("leave").hidden = false;
  await refresh();
  timer = setInterval(() => refresh().catch(() => {}), 5000);
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  signIn().catch((error) => {
    sessionStorage.removeItem(KEY);
    byId("refused").textContent = error.message;
  });
});
byId("leave").addEventListener("click", () => {
  clearInterval(timer);
  sessionStorage.removeItem(KEY);
  location.reload();
});
byId("chat").addEventListener("submit", chat);
if (sessionStorage.getItem(KEY)) signIn().catch(() => sessionStorage.removeItem(KEY));
