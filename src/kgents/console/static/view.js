// What is shown is put in as text: nothing that a tenant wrote is ever read as markup.
export const byId = (id) => document.getElementById(id);

const GOOD = ["connected", "completed", "running", "queued", "active", "paid"];
const PLAIN = ["not_configured", "open", "draft", "void", "archived", "offered"];

export function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(text);
  return made;
}

// A column: its title, what it shows of a row (a text, a number, null, or an element), and its kind.
export function fill(table, columns, rows) {
  const head = document.createElement("tr");
  for (const [title, , kind] of columns) head.append(element("th", title, { className: kind === "number" ? kind : "" }));
  const lines = rows.map((row) => {
    const line = document.createElement("tr");
    for (const [, show, kind] of columns) {
      const shown = show(row) ?? "–";
      const cell = element("td", typeof shown === "number" ? count(shown) : shown);
      if (kind === "number" || kind === "text") cell.className = kind;
      if (kind === "status") cell.className = GOOD.includes(shown) ? "good" : PLAIN.includes(shown) ? "" : "bad";
      line.append(cell);
    }
    return line;
  });
  table.replaceChildren(head, ...lines);
}

export const count = (value) => value.toLocaleString("en");

// Minor units of a currency, as it is written: 1050 eur are €10.50.
export function money(amount, currency) {
  let digits = 2;
  try {
    digits = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
  } catch {
    return `${count(amount)} ${currency}`;
  }
  const text = String(amount).padStart(digits + 1, "0");
  const whole = BigInt(text.slice(0, text.length - digits)).toLocaleString("en");
  return `${digits ? `${whole}.${text.slice(-digits)}` : whole} ${currency.toUpperCase()}`;
}

export const when = (text) => text && text.slice(0, 19).replace("T", " ");

function priced(price, currency) {
  const free = price.included ? `, ${count(price.included)} included` : "";
  const per = price.per === 1 ? "each" : `for ${count(price.per)}`;
  return `${price.meter}${price.model ? ` of ${price.model}` : ""}: ${money(price.amount, currency)} ${per}${free}`;
}

export const METERS = ["runs", "input_tokens", "output_tokens", "tool_calls"];

export const prices = (terms) => terms.prices.map((price) => priced(price, terms.currency)).join("; ");

export function subscribed(subscription) {
  if (!subscription) return "No plan.";
  const fee = money(subscription.monthly_fee, subscription.currency);
  return `${subscription.name}: ${fee} a month, since ${when(subscription.started_at)} UTC. ${prices(subscription)}`;
}

// An invoice that opens to its lines; `actions` are elements beside its total.
function invoice(found, actions) {
  const { currency } = found;
  const summary = element("summary", `${found.period} · ${found.status} · ${money(found.total, currency)}`);
  const table = document.createElement("table");
  fill(table, [
    ["Plan", (line) => line.plan], ["What", (line) => line.meter ?? "monthly fee"], ["Model", (line) => line.model],
    ["Quantity", (line) => line.quantity, "number"], ["Included", (line) => line.included, "number"],
    ["Price", (line) => `${money(line.unit_amount, currency)} for ${count(line.per)}`, "number"],
    ["Amount", (line) => money(line.amount, currency), "number"],
  ], found.lines);
  const made = element("details");
  made.append(summary, table);
  const box = element("div", "", { className: "invoice" });
  box.append(made, ...actions);
  return box;
}

// Show the invoices, with those open that were.
export function invoices(box, found, actions = () => []) {
  const open = new Set([...box.querySelectorAll("details[open] > summary")].map((each) => each.textContent));
  box.replaceChildren(...found.map((each) => invoice(each, actions(each))));
  for (const each of box.querySelectorAll("details")) each.open = open.has(each.firstChild.textContent);
  if (!found.length) box.replaceChildren(element("p", "None yet."));
}

// A link to a page on which an invoice can be paid; null where there is none.
export function payment(url) {
  if (!url?.startsWith("https://")) return null;
  return element("a", "Pay", { href: url, target: "_blank", rel: "noopener noreferrer" });
}
