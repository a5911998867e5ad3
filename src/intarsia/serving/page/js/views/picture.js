/** A picture as something to press, and one picture looked at closely. */

import { announce, button, download, h, notice, prose, refill } from "../dom.js";
import { areas } from "../charts/areas.js";
import { bars } from "../charts/bars.js";
import { mode, ROUTING, WEIGHTS } from "../words.js";
import { checked } from "./receipts.js";

export const PIXELS = 64;

const address = (data) => `data:image/png;base64,${data}`;

/** What a picture is of, in words. */
export function named({ settings }, index) {
  const asked = settings.prompt || settings.label || "a picture";
  return `${asked}, seed ${settings.seed}, number ${index + 1}`;
}

/** A button that shows a picture of a run, or how far it is; `update` draws it anew. */
export function tile(run, index, side, choose) {
  const image = h("img", { alt: "", width: side, height: side, hidden: true });
  const state = h("span", { class: "state" });
  const element = h(
    "button",
    {
      type: "button",
      class: side <= PIXELS ? "tile pixels" : "tile",
      "aria-pressed": "false",
      on: { click: () => choose(run, index, element) },
    },
    image,
    state,
  );
  const update = () => {
    const { data, done, step } = run.pictures[index] ?? {};
    if (data) {
      image.src = address(data);
      image.hidden = false;
    }
    element.classList.toggle("forming", !done);
    const { steps } = run.settings;
    state.textContent = done ? "" : run.error ? "not drawn" : step ? `${step} / ${steps}` : "waiting";
    const how = done ? "show it and take its settings" : run.error ? "not drawn" : `step ${step} of ${steps}`;
    element.setAttribute("aria-label", `${named(run, index)}: ${how}`);
  };
  update();
  return { element, update };
}

/** One picture with what shaped it: weights over time, credit, settings, and what can be saved of it. */
export class Closely {
  #session;
  #credits = new Map();
  #shown = null;

  /** @param {((settings: object) => void)|null} take offered as a button; null where a picture gives its settings by itself */
  constructor(session, take = null) {
    this.#session = session;
    this.take = take;
    this.element = h("section", { class: "closely", "aria-label": "The chosen picture", hidden: true });
  }

  clear() {
    this.#shown?.tile?.setAttribute("aria-pressed", "false");
    this.#shown = null;
    this.element.hidden = true;
  }

  /**
   * @param {HTMLElement|null} tile what was pressed; it is marked as long as its picture is shown
   */
  show(run, index, tile = null) {
    this.#shown?.tile?.setAttribute("aria-pressed", "false");
    tile?.setAttribute("aria-pressed", "true");
    const side = this.#session.side;
    const image = h("img", {
      class: side <= PIXELS ? "pixels" : "",
      alt: named(run, index),
      width: side,
      height: side,
    });
    const course = h("div", {});
    this.#shown = { run, index, tile, image, course };
    const picture = run.pictures[index];
    this.element.hidden = false;
    refill(
      this.element,
      h("div", { class: "portrait" }, image, picture.done && this.#actions(run, index)),
      h(
        "div",
        { class: "shaped" },
        h("h2", { text: "Who shaped it" }),
        course,
        picture.done && this.#credit(run, index),
        facts(run, picture),
      ),
    );
    this.#paint();
  }

  /** Follow a picture that is being drawn; nothing happens for one that is not shown. */
  update(run, index) {
    if (this.#shown?.run !== run || this.#shown.index !== index) return;
    if (run.ended) this.show(run, index, this.#shown.tile);
    else this.#paint();
  }

  #paint() {
    const { run, index, image, course } = this.#shown;
    const picture = run.pictures[index];
    const { data, course: told } = picture;
    image.hidden = !data;
    if (data) image.src = address(data);
    const { length } = told.values;
    const { steps } = run.settings;
    refill(
      course,
      length
        ? areas(told, picture.done ? length : Math.max(steps, length), steps)
        : h("p", { class: "hint", text: "Nothing yet." }),
    );
  }

  #actions(run, index) {
    const save = () => download(`intarsia-${run.settings.seed}-${index + 1}.png`, bytesOf(run.pictures[index].data));
    return h(
      "div",
      { class: "actions" },
      button("Save PNG", save, { symbol: "save" }),
      this.take && button("Use its settings", () => this.take(run.settings), { symbol: "brush" }),
      run.receipt !== null && button("Check receipt", () => this.#checkReceipt(run), { symbol: "check" }),
      run.receipt !== null && button("Save receipt", () => this.#saveReceipt(run), { symbol: "seal" }),
    );
  }

  async #saveReceipt({ receipt }) {
    try {
      download(`receipt-${receipt}.json`, await this.#session.api.blob(addressOf(receipt)));
    } catch (error) {
      this.#say(notice("error", error.message));
    }
  }

  async #checkReceipt({ receipt }) {
    try {
      const [{ key }, text] = await Promise.all([
        this.#session.api.get("v1/ledger"),
        this.#session.api.text(addressOf(receipt)),
      ]);
      this.#say(await checked(text, key));
    } catch (error) {
      this.#say(notice("error", error.message));
    }
  }

  /** Below the picture, in place of what stood there. */
  #say(what) {
    this.element.querySelector(":scope > .notice, :scope > .receipts")?.remove();
    this.element.append(what);
  }

  #credit(run, index) {
    const host = h("div", { class: "credit" });
    const picture = run.pictures[index];
    const found = this.#credits.get(picture);
    if (found) return refill(host, ...credited(found));
    if (!this.#session.can("credit")) return null;
    const ask = button("Work out the credit", async () => {
      ask.disabled = true;
      refill(host, h("p", { class: "hint", text: "Working out the credit …" }));
      try {
        const answer = await this.#session.api.post(
          "v1/credit",
          run.receipt === null ? { image: picture.data } : { receipt: run.receipt, index },
        );
        this.#credits.set(picture, answer);
        refill(host, ...credited(answer));
        announce("The credit is worked out.");
      } catch (error) {
        ask.disabled = false;
        refill(host, ask, notice("error", error.message));
      }
    });
    return refill(host, ask);
  }
}

const addressOf = (receipt) => `v1/receipts/${encodeURIComponent(receipt)}`;

const credited = ({ method, shares, note }) => [
  h("h3", { text: "Credit" }),
  bars(shares),
  h("p", { class: "hint", text: [note, method && `Method: ${method}.`].filter(Boolean).join(" ") }),
];

function facts({ settings, receipt, licences }, { calls }) {
  const rows = [
    ["Asked for", settings.prompt || settings.label || "anything"],
    ["Sources", settings.sources.join(", ")],
    ...(settings.closed ?? []).map(({ name, reason }) => ["Left out", `${name}: ${reason}`]),
    Object.keys(licences).length > 0 && ["Under the licences", [...new Set(Object.values(licences))].join(", ")],
    ["Seed, steps", `${settings.seed}, ${settings.steps}`],
    ["Joined", `${mode(WEIGHTS, settings.weights)[0]}; ${mode(ROUTING, settings.routing)[0].toLowerCase()}`],
    settings.guidance !== 1 && ["Insistence", settings.guidance],
    calls !== null && ["Network calls", Math.round(calls * 10) / 10],
    receipt !== null && ["Receipt", receipt],
  ].filter(Boolean);
  return h(
    "dl",
    { class: "facts-list" },
    ...rows.map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd", {}, ...prose(String(value))))),
  );
}

function bytesOf(data) {
  return new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], { type: "image/png" });
}
