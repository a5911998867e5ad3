/** The rules of a principal: what is drawn for it at most, whatever was granted. */

import { h } from "../dom.js";
import { OBLIGATIONS } from "../words.js";

let made = 0;

/**
 * Fields for rules; `value` is what the service takes.
 *
 * @param {{licences: string[]|null, owners: string[]|null, refuse: string[]}} has what stands in them
 */
export function ruleFields(has = { licences: null, owners: null, refuse: [] }) {
  const id = `rules-${made++}`;
  const boxes = Object.entries(OBLIGATIONS).map(([value, text]) => {
    const box = h("input", { type: "checkbox", name: "refuse", value });
    // The attribute too, so that resetting the form ticks what was ticked.
    box.defaultChecked = has.refuse.includes(value);
    return { value, box, element: h("label", { class: "choice" }, box, h("span", { text })) };
  });
  const listed = (name, text, values) => {
    const control = h("input", { id: `${id}-${name}`, autocomplete: "off", placeholder: "Empty: any" });
    control.defaultValue = (values ?? []).join(", ");
    const label = h("label", { for: control.id, text });
    return { control, element: h("div", { class: "field" }, label, control) };
  };
  const licences = listed("licences", "Only under these licences (SPDX, with commas)", has.licences);
  const owners = listed("owners", "Only of these owners (with commas)", has.owners);
  const refuse = h(
    "fieldset",
    {},
    h("legend", { text: "Refuse sources whose licence asks for" }),
    ...boxes.map(({ element }) => element),
  );
  return {
    parts: [refuse, h("div", { class: "fields two" }, licences.element, owners.element)],
    get value() {
      return {
        licences: listOf(licences.control.value),
        owners: listOf(owners.control.value),
        refuse: boxes.filter(({ box }) => box.checked).map(({ value }) => value),
      };
    },
  };
}

/** Rules in words; empty where there are none. */
export function rulesOf({ licences, owners, refuse }) {
  return [
    refuse.length > 0 && `refuses ${refuse.join(", ")} licences`,
    licences && `only under ${licences.join(", ")}`,
    owners && `only of ${owners.join(", ")}`,
  ]
    .filter(Boolean)
    .join("; ");
}

/** What stands between commas; null where nothing does, which admits any. */
function listOf(text) {
  const found = text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
  return found.length ? found : null;
}
