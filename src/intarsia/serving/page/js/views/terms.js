/** The terms of keys and grants: until when, and how many pictures. */

import { h } from "../dom.js";
import { lastDay } from "../words.js";

const PERIODS = ["hour", "day", "month"];

let made = 0;

/**
 * A day until whose end something lasts; its value is null where it has no end.
 *
 * @param {string|null} until when it ends as it stands, which stays to the second as long as nobody changes the day
 */
export function endField(text, until = null) {
  const id = `until-${made++}`;
  const stands = until && (lastDay(until) ?? until.slice(0, 10));
  const control = h("input", { id, type: "date", value: stands, "aria-describedby": `${id}-note` });
  const note = h("p", { class: "hint", id: `${id}-note`, text: "Empty: it has no end. A day counts to its end, in UTC." });
  return {
    element: h("div", { class: "field" }, h("label", { for: id, text }), control, note),
    get value() {
      return control.value === stands ? until : control.value || null;
    },
  };
}

/** How many pictures at most, per period; its value is null where there is no limit. */
export function quotaField(quota = null) {
  const id = `quota-${made++}`;
  const [most, each] = (quota ?? "/day").split("/");
  const images = h("input", { id, type: "number", inputmode: "numeric", min: 1, step: 1, value: most });
  const period = h(
    "select",
    { "aria-label": "Per" },
    ...PERIODS.map((name) => h("option", { value: name, text: `per ${name}`, selected: name === each })),
  );
  const element = h(
    "div",
    { class: "field" },
    h("label", { for: id, text: "At most so many pictures" }),
    h("div", { class: "fields two" }, images, period),
    h("p", { class: "hint", text: "Empty: as many as there is time for." }),
  );
  return {
    element,
    get value() {
      return images.value ? `${images.value}/${period.value}` : null;
    },
  };
}
