/** Keys: what one is for, until when, and the one moment in which a new one is shown. */

import { announce, button, h, notice, refill } from "../dom.js";
import { SCOPES } from "../words.js";

const USUAL = ["read", "sample", "credit"];

let made = 0;

/** Boxes for the scopes of a key, the usual ones ticked; `chosen` tells which are. */
export function scopeBoxes(legend) {
  const boxes = Object.entries(SCOPES).map(([value, words]) => {
    const box = h("input", { type: "checkbox", name: "scope", value });
    // The attribute too, so that resetting the form ticks them again.
    box.defaultChecked = USUAL.includes(value);
    return { value, box, element: h("label", { class: "choice" }, box, h("span", { text: words })) };
  });
  const element = h("fieldset", {}, h("legend", { text: legend }), ...boxes.map(({ element }) => element));
  return {
    element,
    get chosen() {
      return boxes.filter(({ box }) => box.checked).map(({ value }) => value);
    },
  };
}

/** A day until whose end something lasts; its value is null where it has no end. */
export function endField(text) {
  const id = `until-${made++}`;
  const control = h("input", { id, type: "date", "aria-describedby": `${id}-note` });
  const note = h("p", { class: "hint", id: `${id}-note`, text: "Empty: it has no end. A day counts to its end, in UTC." });
  return {
    element: h("div", { class: "field" }, h("label", { for: id, text }), control, note),
    get value() {
      return control.value || null;
    },
  };
}

/** Where a new key stands until somebody has copied it: the service keeps no copy and cannot show it again. */
export class KeyShown {
  constructor() {
    this.element = h("div", { class: "new-key" });
  }

  show(principal, key) {
    const text = h("input", { class: "mono", value: key, readonly: true, "aria-label": `The new key of ${principal}` });
    text.addEventListener("focus", () => text.select());
    const copy = button("Copy", () => this.#copy(text, copy), { symbol: "copy" });
    refill(
      this.element,
      notice(
        "good",
        `A new key of “${principal}”. It is shown this once: copy it now, and hand it over by a safe way.`,
        h("div", { class: "joined wide" }, text, copy),
        button("I have it", () => this.hide(), { kind: "small" }),
      ),
    );
    announce(`A new key of ${principal} was made. It is shown this once.`);
    this.element.scrollIntoView({ block: "nearest" });
    text.focus();
  }

  hide() {
    refill(this.element);
  }

  async #copy(text, copy) {
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
      copy.querySelector("span").textContent = "Copied";
      announce("The key is copied.");
    } catch {
      // No clipboard over plain http: the key is selected, and copied by hand.
      announce("The key is selected. Copy it with Ctrl C.");
    }
  }
}
