/** The page's beginning: who is here, which view is shown, and the keys that work everywhere. */

import { button, byId, notice, refill } from "./dom.js";
import { keyOfAddress, Session } from "./session.js";
import { CompareView } from "./views/compare.js";
import { DrawView } from "./views/draw.js";
import { ErasureView } from "./views/erasure.js";
import { Form, Unusable } from "./views/form.js";
import { KeyDialog } from "./views/key.js";
import { LedgerView } from "./views/ledger.js";
import { PayoutsView } from "./views/payouts.js";
import { PeopleView } from "./views/people.js";

const TITLES = {
  draw: "Draw",
  compare: "Compare",
  ledger: "Ledger",
  erasure: "Erasure",
  payouts: "Payouts",
  people: "People",
};
const PAGES = ["ledger", "erasure", "payouts", "people"];
const OF_ADMINS = ["payouts", "people"];
const THEMES = ["system", "light", "dark"];

const session = Session.begun();
const dialog = new KeyDialog(session);
const form = new Form();
const views = {
  draw: new DrawView(session, form),
  compare: new CompareView(session, form, takeSettings),
  ledger: new LedgerView(session),
  erasure: new ErasureView(session),
  payouts: new PayoutsView(session),
  people: new PeopleView(session),
};
let principal = null;

/** The view that the address names, `#/ledger`; the slash keeps it apart from the ids of the document. */
function viewName() {
  const name = location.hash.slice(2);
  return name in TITLES ? name : "draw";
}

function takeSettings(settings) {
  form.write(settings);
  location.hash = "#/draw";
}

/** Scroll a strip until a link is whole in it; `scrollIntoView` would take the keyboard there too. */
function uncover(link, strip) {
  const [at, of] = [link, strip].map((each) => each.getBoundingClientRect());
  strip.scrollLeft += Math.ceil(Math.max(0, at.right - of.right)) - Math.ceil(Math.max(0, of.left - at.left));
}

/** Show the view that the address names. */
function route() {
  const name = viewName();
  document.title = `${TITLES[name]} · intarsia`;
  for (const link of byId("nav").querySelectorAll("a")) {
    const here = link.getAttribute("href") === `#/${name}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (here) uncover(link, byId("nav").parentElement);
  }
  const studio = name === "draw" || name === "compare";
  byId("studio").hidden = !studio || !session.vault;
  for (const each of ["draw", "compare"]) byId(`stage-${each}`).hidden = name !== each;
  for (const each of PAGES) byId(each).hidden = name !== each || !session.vault;
  byId("form-rows").hidden = name !== "compare";
  byId("count-label").textContent = name === "compare" ? "Columns" : "Pictures";
  byId("draw").querySelector("span").textContent = TITLES[name] === "Compare" ? "Compare" : "Draw";
  if (name !== "people") views.people.leave();
  showBusy();
  if (session.vault && !studio) views[name].show();
}

function showBusy() {
  const view = views[viewName()];
  byId("draw").hidden = Boolean(view.busy);
  byId("stop").hidden = !view.busy;
}

async function submit(event) {
  event.preventDefault();
  const name = viewName();
  if (!(name === "draw" || name === "compare") || views[name].busy) return;
  let settings;
  try {
    settings = form.read();
  } catch (error) {
    if (!(error instanceof Unusable)) throw error;
    form.blame(error.field, error.message);
    return;
  }
  const rows = new FormData(form.element).get("rows");
  const drawn = views[name].draw(settings, rows);
  showBusy();
  if (matchMedia("(width < 56.25rem)").matches) byId(`stage-${name}`).scrollIntoView();
  await drawn;
  showBusy();
}

/** Ask the service what there is; without a valid key, ask for one. */
async function begin() {
  try {
    await session.refresh();
  } catch (error) {
    if (error.unknownKey) askForKey(session.api.key ? error.message : "");
    else refill(byId("trouble"), notice("error", error.message, button("Try again", begin)));
  }
  route();
}

function askForKey(why = "") {
  refill(
    byId("trouble"),
    notice(
      "info",
      "What there is to see depends on your key.",
      button("Give a key", () => dialog.open()),
    ),
  );
  dialog.open(why);
}

session.addEventListener("change", () => {
  if (principal !== null && principal !== session.name) for (const name of ["draw", "compare"]) views[name].reset();
  principal = session.name;
  byId("about-vault").textContent = session.vault
    ? `${session.vault.name} · ${session.vault.image_shape.slice(1).join(" × ")} pixels`
    : "";
  for (const each of OF_ADMINS) byId("nav").querySelector(`[href="#/${each}"]`).hidden = !session.can("admin");
  if (session.vault) form.show(session);
  if (viewName() === "draw" || viewName() === "compare" || !session.vault) route();
  if (session.vault) refill(byId("trouble"));
  else askForKey();
});

function theme(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  const word = { system: "System", light: "Light", dark: "Dark" }[chosen];
  byId("theme").querySelector("span").textContent = word;
  byId("theme").setAttribute("aria-label", `Colours: ${word}. Press for the next.`);
  byId("theme").title = `Colours: ${word}`;
}

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % THEMES.length];
  theme(next);
  try {
    localStorage.setItem("intarsia.theme", next);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
});

theme(document.documentElement.dataset.theme ?? "system");
byId("form").addEventListener("submit", submit);
byId("stop").addEventListener("click", () => views[viewName()].stop());
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", () => {
  const key = keyOfAddress();
  if (key) session.enter(key).catch((error) => dialog.open(error.message));
  route();
  byId("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]"))
    byId("form").requestSubmit();
});
begin();
