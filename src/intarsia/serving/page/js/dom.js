/**
 * Elements without markup: every text becomes a text node, so that names and captions written by others stay text.
 */

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id, which the page is known to have. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {object} given attributes; `class`, `text`, `on` (listeners by event), `data` and plain properties such as
 *   `disabled` or `value` are set as such. Null, undefined and false leave an attribute out.
 * @param {...(Node|string|number|null|undefined|false)} children
 */
export function h(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** As `h`, for SVG. */
export function s(tag, given = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), given, children);
}

const PROPERTIES = new Set(["checked", "disabled", "hidden", "open", "required", "selected", "value"]);

function filled(element, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put these children in place of those that an element has. */
export function refill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An icon of the sheet in index.html; it says nothing, so a text stands beside it or its button has a label. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("use", { href: `#i-${name}` }));
}

/** A text in which `words` between backticks are commands and names. */
export function prose(text) {
  return text.split("`").map((part, place) => (place % 2 ? h("code", { text: part }) : part));
}

/** Something to press. */
export function button(text, press, { kind = "plain", symbol = null, label = null, ...rest } = {}) {
  return h(
    "button",
    { type: "button", class: `button ${kind}`, "aria-label": label, title: label, on: { click: press }, ...rest },
    symbol && icon(symbol),
    text && h("span", { text }),
  );
}

/** A note where something happened: `kind` is error, good, warn or info; a word says it, the colour repeats it. */
export function notice(kind, text, ...more) {
  const symbol = { error: "cross", good: "check", warn: "warn", info: "info" }[kind];
  const role = kind === "error" ? "alert" : null;
  return h("div", { class: `notice ${kind}`, role }, icon(symbol), h("div", {}, h("p", {}, ...prose(text)), ...more));
}

/**
 * A table; on a phone each row becomes a card, in which every cell says what it is.
 *
 * @param {string[]} heads
 * @param {HTMLTableRowElement[]} rows
 * @param {object} name attributes that name it, `aria-label` or `aria-labelledby`
 */
export function table(heads, rows, name) {
  for (const row of rows) for (const [column, cell] of [...row.cells].entries()) cell.dataset.label = heads[column];
  const right = (column) => (rows[0]?.cells[column].classList.contains("right") ? "right" : null);
  const head = (text, column) => h("th", { scope: "col", class: right(column), text });
  return h(
    "div",
    { class: "scroll plain stacked", tabindex: 0, role: "region", ...name },
    h("table", {}, h("thead", {}, h("tr", {}, ...heads.map(head))), h("tbody", {}, ...rows)),
  );
}

/** A bar that fills; `value` in 0..1, null while nobody knows. */
export function meter(label, value) {
  const bar = h("progress", { max: 1, "aria-label": label });
  if (value !== null) bar.value = value;
  return bar;
}

let said = 0;

/** Tell those who listen to the page instead of looking at it. */
export function announce(text) {
  const live = byId("live");
  // The same sentence twice is only spoken twice if the text differs.
  live.textContent = text + (said++ % 2 ? "\u00a0" : "");
}

/** Save bytes as a file of the reader's. */
export function download(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
