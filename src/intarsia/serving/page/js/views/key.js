/** The key of this tab: giving it, taking it away, and what it may do. */

import { announce, byId, h, icon, meter, prose, refill } from "../dom.js";
import { end, SCOPES } from "../words.js";

export class KeyDialog {
  #session;

  constructor(session) {
    this.#session = session;
    this.dialog = byId("key-dialog");
    byId("key-open").addEventListener("click", () => this.open());
    byId("key-close").addEventListener("click", () => this.dialog.close());
    byId("key-form").addEventListener("submit", (event) => this.#enter(event));
    byId("key-forget").addEventListener("click", () => {
      session.leave();
      this.dialog.close();
    });
    session.addEventListener("change", () => this.#show());
  }

  /** @param {string} [trouble] why it is asked for */
  open(trouble = "") {
    this.#show();
    this.#blame(trouble);
    byId("key").value = "";
    if (!this.dialog.open) this.dialog.showModal();
  }

  async #enter(event) {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (!/^[\x21-\x7e]+$/.test(key))
      return this.#blame(
        key
          ? "A key has letters, digits and underscores only. Was it copied whole?"
          : "Give a key: it begins with int_.",
      );
    this.#blame("");
    try {
      await this.#session.enter(key);
      this.dialog.close();
      announce(`You are ${this.#session.name}.`);
    } catch (error) {
      this.#blame(error.message);
    }
  }

  #blame(message) {
    const place = byId("key-error");
    refill(place, ...prose(message));
    place.hidden = !message;
    byId("key").toggleAttribute("aria-invalid", Boolean(message));
    if (message) byId("key").focus();
  }

  #show() {
    const { me, api } = this.#session;
    byId("key-open").querySelector("span").textContent = this.#session.name ?? "Key";
    byId("key-forget").hidden = !api.key;
    refill(
      byId("key-allows"),
      me &&
        h(
          "section",
          { class: "allows", "aria-label": "What this key may do" },
          h("h3", { text: `${this.#session.name} may` }),
          h("ul", {}, ...Object.entries(SCOPES).map(([scope, words]) => this.#scope(scope, words))),
          ...(me.quotas ?? []).map(quota),
          h("p", { class: "hint", text: endOf(me) }),
        ),
    );
  }

  #scope(scope, words) {
    const may = this.#session.can(scope);
    return h(
      "li",
      { class: may ? "may" : "may-not" },
      icon(may ? "check" : "cross"),
      h("span", {}, words, !may && h("span", { class: "hint", text: " (not with this key)" })),
    );
  }
}

function endOf({ principal, expires }) {
  if (principal === null) return "The key ends with the service.";
  return expires ? `The key ends on ${end(expires)}.` : "The key has no end.";
}

function quota({ source, used, limit, per }) {
  const words = `${source}: ${used} of ${limit} pictures this ${per}`;
  return h("div", { class: "quota" }, h("span", { text: words }), meter(words, limit ? Math.min(1, used / limit) : 1));
}
