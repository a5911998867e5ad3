/** The sources as switches: what each is, whose, on which terms, and why it may not be used. */

import { button, h, icon, prose, refill } from "../dom.js";
import { counted, sentence } from "../words.js";
import { palette } from "../charts/palette.js";

const SEARCHED_FROM = 5;

let rows = 0;

/** Fires `change` when the choice has changed. */
export class SourceSwitches extends EventTarget {
  #chosen = new Set();
  #rows = new Map();
  #host;

  /** @param {HTMLFieldSetElement} host */
  constructor(host) {
    super();
    this.#host = host;
  }

  /** The names that are switched on, in the vault's order. */
  get chosen() {
    return [...this.#rows.keys()].filter((name) => this.#chosen.has(name));
  }

  /** Those that may not be used, each with the reason. */
  get closed() {
    return [...this.#rows.values()].filter(({ reason }) => reason).map(({ name, reason }) => ({ name, reason }));
  }

  /** Switch these on and all others off; what may not be used stays off. */
  set chosen(names) {
    const wanted = new Set(names);
    this.#chosen.clear();
    for (const [name, { box }] of this.#rows) {
      box.checked = !box.disabled && wanted.has(name);
      if (box.checked) this.#chosen.add(name);
    }
    this.#changed();
  }

  /** Show these sources; switches stay as they stand, and those of sources that are new here are on. */
  show(sources) {
    const known = new Set(this.#rows.keys());
    const before = this.#chosen;
    this.#rows = new Map(sources.map((source) => [source.name, this.#row(source)]));
    const search = h("input", {
      type: "search",
      id: "source-search",
      placeholder: "Name, owner or licence",
      on: { input: () => this.#filter(search.value) },
    });
    const searched = sources.length >= SEARCHED_FROM;
    refill(
      this.#host,
      h("legend", {}, h("span", { text: "Sources" }), h("span", { class: "tally", id: "source-tally" })),
      h(
        "div",
        { class: "source-tools" },
        searched &&
          h(
            "label",
            { class: "search", for: "source-search" },
            icon("search"),
            h("span", { class: "visually-hidden", text: "Search sources" }),
            search,
          ),
        button("All", () => this.#setShown(true), { kind: "small" }),
        button("None", () => this.#setShown(false), { kind: "small" }),
      ),
      h("ul", { class: "source-list" }, ...[...this.#rows.values()].map(({ item }) => item)),
      h("p", { class: "hint", id: "source-none", hidden: true, text: "No source matches." }),
      h("p", { class: "field-error", id: "sources-error", hidden: true }),
    );
    if (!sources.length) this.#host.append(h("p", { class: "hint", text: "No source was granted to this key yet." }));
    this.chosen = sources.map(({ name }) => name).filter((name) => before.has(name) || !known.has(name));
  }

  #row(source) {
    const reasonId = `why-${rows++}`;
    const box = h("input", {
      type: "checkbox",
      role: "switch",
      disabled: !source.permitted,
      "aria-describedby": source.permitted ? null : reasonId,
      on: { change: () => this.#flip(source.name, box.checked) },
    });
    const facts = [source.owner, source.licence, counted(source.count, "picture")].filter(Boolean);
    const item = h(
      "li",
      { class: source.permitted ? "source" : "source closed" },
      h(
        "label",
        {},
        box,
        palette.swatch(source.name),
        h(
          "span",
          { class: "who" },
          h("span", { class: "name", text: source.name }),
          h("span", { class: "facts", text: facts.join(" · ") }),
        ),
      ),
      !source.permitted &&
        h("p", { class: "reason", id: reasonId }, icon("lock"), h("span", {}, ...prose(reasonOf(source)))),
    );
    const words = [source.name, ...facts].join(" ").toLowerCase();
    return { name: source.name, reason: source.permitted ? null : reasonOf(source), item, box, words };
  }

  #flip(name, on) {
    if (on) this.#chosen.add(name);
    else this.#chosen.delete(name);
    this.#changed();
  }

  #setShown(on) {
    for (const [name, { box, item }] of this.#rows) {
      if (item.hidden || box.disabled) continue;
      box.checked = on;
      if (on) this.#chosen.add(name);
      else this.#chosen.delete(name);
    }
    this.#changed();
  }

  #filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { item, words: own } of this.#rows.values()) {
      item.hidden = !words.every((word) => own.includes(word));
      shown += item.hidden ? 0 : 1;
    }
    this.#host.querySelector("#source-none").hidden = shown > 0;
  }

  #changed() {
    const tally = this.#host.querySelector("#source-tally");
    if (tally) tally.textContent = `${this.#chosen.size} of ${this.#rows.size} in use`;
    this.dispatchEvent(new Event("change"));
  }
}

/** The sources of a session, to choose one of them. */
export const sourceOptions = ({ sources }) => sources.map(({ name }) => h("option", { value: name, text: name }));

function reasonOf({ reason, state }) {
  if (reason) return sentence(reason);
  return state === "trained" ? "Not granted to this key." : `Not ready: ${state}.`;
}
