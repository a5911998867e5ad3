/** Keys: what one is for, and the one moment in which a new one is shown. */

import { announce, button, h, notice, refill } from "../dom.js";
import { SCOPES } from "../words.js";

const USUAL = ["read", "sample", "credit"];

/** Boxes for the scopes of a key, the usual ones ticked or those that it has; `chosen` tells which are. */
export function scopeBoxes(legend, has = USUAL) {
  const boxes = Object.entries(SCOPES).map(([value, words]) => {
    const box = h("input", { type: "checkbox", name: "scope", value });
    // The attribute too, so that resetting the form ticks them again.
    box.defaultChecked = has.includes(value);
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
