// Signing in and out, and how often what is shown is read again.
import { get, key } from "./api.js";
import * as owner from "./owner.js";
import * as tenant from "./tenant.js";
import { byId } from "./view.js";

const SOON = 5_000; // milliseconds
const LATER = 60_000;

function leave() {
  key.forget();
  location.reload();
}

// A key that has ended while it was in use ends the page; what else goes wrong is tried again.
function repeat(milliseconds, work) {
  setInterval(() => {
    if (!document.hidden) work().catch((error) => error.status === 401 && leave());
  }, milliseconds);
}

async function signIn() {
  byId("tenant").textContent = (await get("/v1/tenant")).name;
  const isOwner = await owner.begin();
  await tenant.all();
  byId("sign-in").hidden = true;
  byId("signed-in").hidden = byId("leave").hidden = false;
  repeat(SOON, tenant.now);
  repeat(LATER, async () => {
    await tenant.all();
    if (isOwner) await owner.refresh();
  });
}

function refused(error) {
  key.forget();
  byId("refused").textContent = error.message;
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  key.keep(byId("key").value.trim());
  byId("key").value = "";
  byId("refused").textContent = "";
  signIn().catch(refused);
});
byId("leave").addEventListener("click", leave);
byId("chat").addEventListener("submit", tenant.chat);
if (key.get()) signIn().catch(refused);
