/** The one form: what to draw, from whom, how. It reads and writes settings as one plain object. */

import { byId, h, prose, refill } from "../dom.js";
import { counted, mode, ROUTING, WEIGHTS } from "../words.js";
import { SourceSwitches } from "./sources.js";

const FEW = 12;

/**
 * @typedef {object} Settings
 * @property {string|null} label
 * @property {string} prompt
 * @property {string[]} sources
 * @property {{name: string, reason: string}[]} closed those that could not be used at that time
 * @property {number} count
 * @property {number} seed
 * @property {number} steps
 * @property {string} weights
 * @property {string} routing
 * @property {number} guidance
 */

/** A setting that cannot be used; `field` is the name of its control. */
export class Unusable extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

const WHOLE = {
  n: ["count", "number of pictures"],
  seed: ["seed", "seed"],
  num_inference_steps: ["steps", "number of steps"],
};

export class Form {
  #labels = [];
  #offered = null;
  #reading = new Set();
  #asking = null;
  #wanted = { label: null, prompt: "" };

  constructor() {
    this.element = byId("form");
    this.switches = new SourceSwitches(byId("form-sources"));
    byId("reseed").addEventListener("click", () => {
      byId("seed").value = crypto.getRandomValues(new Uint16Array(1))[0];
    });
    for (const id of ["weights", "routing"]) byId(id).addEventListener("change", () => this.#explain());
    this.element.addEventListener("input", ({ target }) => this.#clear(target.name));
    this.switches.addEventListener("change", () => {
      this.#clear("sources");
      this.#ask();
    });
  }

  /** Offer what the vault has for this key; what stands in the form stays as far as it is still offered. */
  show({ vault, sources }) {
    this.#reading = new Set(sources.filter(({ text }) => text).map(({ name }) => name));
    this.switches.show(sources);
    const offered = JSON.stringify([vault.conditioning, vault.weights, vault.routing]);
    if (offered === this.#offered) return;
    if (this.#offered === null) this.#begin(vault);
    const standing = { weights: byId("weights").value, routing: byId("routing").value };
    this.#offered = offered;
    this.#labels = vault.conditioning.labels;
    this.#ask(true);
    refill(byId("weights"), ...vault.weights.map((kind) => option(WEIGHTS, kind)));
    refill(byId("routing"), ...vault.routing.map((kind) => option(ROUTING, kind)));
    const likely = [standing.weights, vault.defaults.weights, ...vault.weights];
    byId("weights").value = likely.find((kind) => vault.weights.includes(kind));
    select(byId("routing"), ROUTING, standing.routing || vault.defaults.routing);
    this.#explain();
  }

  #begin({ defaults, limits }) {
    [byId("count").max, byId("steps").max] = [limits.images, limits.steps];
    byId("steps").value = defaults.steps;
    byId("guidance").value = defaults.guidance_scale;
  }

  /**
   * The settings as they stand.
   *
   * @returns {Settings}
   * @throws {Unusable} the first that cannot be used
   */
  read() {
    const numbers = Object.fromEntries(
      Object.entries(WHOLE).map(([field, [id, noun]]) => [id, whole(field, byId(id), noun)]),
    );
    const guidance = number("guidance_scale", byId("guidance"), "insistence");
    const sources = this.switches.chosen;
    if (!sources.length) throw new Unusable("sources", "No source is in use. Switch at least one on.");
    return {
      ...numbers,
      guidance,
      sources,
      closed: this.switches.closed,
      weights: byId("weights").value,
      routing: byId("routing").value,
      ...this.#asked(),
    };
  }

  /** Put settings into the form; returns the sources among them that cannot be used any more. */
  write(settings) {
    byId("count").value = settings.count;
    byId("seed").value = settings.seed;
    byId("steps").value = settings.steps;
    byId("guidance").value = settings.guidance;
    select(byId("weights"), WEIGHTS, settings.weights);
    select(byId("routing"), ROUTING, settings.routing);
    this.switches.chosen = settings.sources;
    this.#put(settings);
    this.#explain();
    for (const error of this.element.querySelectorAll(".field-error")) error.hidden = true;
    const now = new Set(this.switches.chosen);
    return settings.sources.filter((name) => !now.has(name));
  }

  /** Say what is wrong where it is wrong; what belongs to no control is said above the button. */
  blame(field, message) {
    const place = byId(`${field}-error`) ?? byId("form-error");
    refill(place, ...prose(message));
    place.hidden = false;
    place.closest("details")?.setAttribute("open", "");
    const control = this.element.elements.namedItem(field);
    if (control instanceof HTMLElement) {
      control.setAttribute("aria-invalid", "true");
      control.focus();
    } else {
      place.scrollIntoView({ block: "nearest" });
    }
  }

  #clear(field) {
    for (const place of [byId(`${field}-error`), byId("form-error")]) if (place) place.hidden = true;
    const control = this.element.elements.namedItem(field);
    if (control instanceof HTMLElement) control.removeAttribute("aria-invalid");
  }

  /**
   * Offer what the sources that are on can be asked for: those that learned from captions read words and no labels,
   * others know labels, or are asked for nothing. What was typed comes back with its field.
   */
  #ask(anew = false) {
    const on = this.switches.chosen;
    const reading = on.filter((name) => this.#reading.has(name)).length;
    const asking = !on.length ? (this.#asking ?? "labels") : !reading ? "labels" : reading < on.length ? "both" : "words";
    if (asking === this.#asking && !anew) return;
    this.#wanted = this.#typed();
    this.#asking = asking;
    refill(byId("form-what"), { words, labels: () => known(this.#labels), both }[asking]());
    this.#put(this.#wanted);
  }

  #asked() {
    const typed = this.#typed();
    const [label, prompt] = [this.#asking === "labels" ? typed.label : null, this.#asking === "words" ? typed.prompt : ""];
    if (label && !this.#labels.includes(label)) {
      const found = `“${label}” is not among the ${this.#labels.length} labels of this vault`;
      throw new Unusable("label", `${found}. Choose one from the list, or leave it empty.`);
    }
    return { label, prompt };
  }

  /** What stands in the field for what is to be drawn, and of the others what stood in them last. */
  #typed() {
    const field = byId("label") ?? this.element.querySelector("input[name=label-choice]:checked");
    const label = field ? field.value.trim() || null : this.#wanted.label;
    return { label, prompt: byId("prompt")?.value.trim() ?? this.#wanted.prompt };
  }

  #put({ label, prompt }) {
    this.#wanted = { label, prompt };
    if (byId("label")) byId("label").value = label ?? "";
    if (byId("prompt")) byId("prompt").value = prompt;
    const chips = [...this.element.querySelectorAll("input[name=label-choice]")];
    for (const chip of chips) chip.checked = chip.value === (label ?? "");
    if (chips.length && !chips.some(({ checked }) => checked)) chips[0].checked = true;
  }

  #explain() {
    byId("weights-note").textContent = mode(WEIGHTS, byId("weights").value)[1];
    byId("routing-note").textContent = mode(ROUTING, byId("routing").value)[1];
  }
}

function both() {
  return h("p", {
    class: "hint lead",
    text: "Some of these sources read words and some know labels. To ask for something, switch off the ones or the others.",
  });
}

function known(labels) {
  if (labels.length) return labels.length <= FEW ? chips(labels) : search(labels);
  return h("p", { class: "hint lead", text: "These sources draw without being asked for anything in particular." });
}

function words() {
  return h(
    "div",
    { class: "field" },
    h("label", { for: "prompt", text: "What to draw" }),
    h("textarea", {
      id: "prompt",
      name: "prompt",
      rows: 2,
      maxlength: 1000,
      placeholder: "Anything",
      "aria-describedby": "prompt-note prompt-error",
    }),
    h("p", {
      class: "hint",
      id: "prompt-note",
      text: "In words. More insistence, below, follows them more closely. Empty draws anything.",
    }),
    h("p", { class: "field-error", id: "prompt-error", hidden: true }),
  );
}

function chips(labels) {
  const chip = (value, text) =>
    h(
      "label",
      { class: "chip" },
      h("input", { type: "radio", name: "label-choice", value, checked: value === "" }),
      h("span", { text }),
    );
  return h(
    "fieldset",
    { class: "chips" },
    h("legend", { text: "What to draw" }),
    h("div", { class: "chip-row" }, chip("", "Anything"), ...labels.map((label) => chip(label, label))),
    h("p", { class: "field-error", id: "label-error", hidden: true }),
  );
}

function search(labels) {
  return h(
    "div",
    { class: "field" },
    h("label", { for: "label", text: "What to draw" }),
    h("input", {
      id: "label",
      name: "label",
      list: "labels",
      autocomplete: "off",
      placeholder: "Anything",
      "aria-describedby": "label-note label-error",
    }),
    h("datalist", { id: "labels" }, ...labels.map((label) => h("option", { value: label }))),
    h("p", {
      class: "hint",
      id: "label-note",
      text: `One of ${counted(labels.length, "label")}: begin to type. Empty draws anything.`,
    }),
    h("p", { class: "field-error", id: "label-error", hidden: true }),
  );
}

const option = (table, kind) => h("option", { value: kind, text: mode(table, kind)[0] });

/** Choose a kind that may carry a number (`top_k:3`), which is offered from then on. */
function select(control, table, kind) {
  if (!kind) return;
  if (![...control.options].some(({ value }) => value === kind)) control.append(option(table, kind));
  control.value = kind;
}

function number(field, control, noun) {
  const value = control.valueAsNumber;
  const [low, high] = [Number(control.min), Number(control.max)];
  if (Number.isFinite(value) && value >= low && value <= high) return value;
  throw new Unusable(field, `The ${noun} goes from ${low} to ${high.toLocaleString("en")}.`);
}

function whole(field, control, noun) {
  const value = number(field, control, noun);
  if (Number.isInteger(value)) return value;
  throw new Unusable(field, `The ${noun} is a whole number.`);
}
