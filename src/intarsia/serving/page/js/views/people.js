/** People: who may draw besides the vault's owner. It takes a key with the scope “admin”. */

import { byId, h, icon, notice, refill } from "../dom.js";
import { KeyShown, scopeBoxes } from "./keys.js";
import { PersonCard } from "./person.js";
import { ruleFields } from "./rules.js";
import { endField } from "./terms.js";

const SEARCHED_FROM = 5;

export class PeopleView {
  #session;
  #open = new Set();

  constructor(session) {
    this.#session = session;
    this.host = byId("people");
    this.shown = new KeyShown();
    this.search = h("input", {
      type: "search",
      id: "people-search",
      placeholder: "Name, or what was granted",
      on: { input: () => this.#filter() },
    });
  }

  async show() {
    this.list = h("div", { class: "people" });
    this.none = h("p", { class: "hint", hidden: true });
    const finder = h(
      "label",
      { class: "search", for: "people-search", hidden: true },
      icon("search"),
      h("span", { class: "visually-hidden", text: "Search people" }),
      this.search,
    );
    this.finder = finder;
    refill(
      this.host,
      h(
        "header",
        {},
        h("h1", { id: "people-title", text: "People" }),
        h("p", {
          class: "lead",
          text: "Who may draw from what. Nobody may draw from a source that was not granted; what is taken away is gone at once, also for pictures that are being drawn.",
        }),
      ),
      this.shown.element,
      this.#adding(),
      finder,
      this.list,
      this.none,
    );
    await this.reload();
  }

  /** A key that was shown is not shown again. */
  leave() {
    this.shown.hide();
  }

  /** Ask anew who there is; those that stood open stand open. */
  async reload() {
    try {
      const { data } = await this.#session.api.get("v1/principals");
      this.cards = data.map((person) => new PersonCard(this.#session, person, this, this.#open));
      refill(this.list, ...this.cards.map(({ element }) => element));
      this.finder.hidden = data.length < SEARCHED_FROM;
      this.#filter();
    } catch (error) {
      refill(this.list, notice(error.status === 403 ? "info" : "error", error.message));
    }
  }

  /** Somebody may do more or less than before; perhaps whoever looks at this. */
  async changed(name) {
    await this.reload();
    if (name === this.#session.me?.principal) this.#session.refresh().catch(() => {});
  }

  #filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = (this.cards ?? []).filter((card) => card.matches(words)).length;
    this.none.textContent = words.length ? "Nobody matches." : "Nobody was added yet.";
    this.none.hidden = shown > 0;
  }

  #adding() {
    const name = h("input", {
      id: "person-name",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "studio",
      "aria-describedby": "person-name-note",
    });
    const rules = ruleFields();
    const scopes = scopeBoxes("What the key is for");
    const until = endField("The key ends on");
    const said = h("div", { "aria-live": "polite" });
    const submit = async (event) => {
      event.preventDefault();
      const body = {
        name: name.value.trim(),
        ...rules.value,
        scopes: scopes.chosen,
        until: until.value,
      };
      if (!body.name) {
        refill(said, notice("error", "Give a name, in small letters, digits and hyphens."));
        return name.focus();
      }
      if (!body.scopes.length) return refill(said, notice("error", "Say what the key is for: tick at least one."));
      try {
        const { key } = await this.#session.api.post("v1/principals", body);
        refill(said);
        this.#open.add(body.name);
        adding.open = false;
        event.target.reset();
        this.shown.show(body.name, key);
        await this.reload();
      } catch (error) {
        refill(said, notice("error", error.message));
      }
    };
    const field = (id, text, control, note) =>
      h("div", { class: "field" }, h("label", { for: id, text }), control, note);
    const adding = h(
      "details",
      { class: "card advanced" },
      h("summary", { text: "Add somebody" }),
      h(
        "form",
        { class: "adding", novalidate: true, on: { submit } },
        field(
          "person-name",
          "Name",
          name,
          h("p", { class: "hint", id: "person-name-note", text: "Small letters, digits and hyphens." }),
        ),
        ...rules.parts,
        scopes.element,
        until.element,
        h(
          "div",
          { class: "submit" },
          h("button", { type: "submit", class: "button primary" }, icon("key"), h("span", { text: "Add, and make a key" })),
        ),
        said,
      ),
    );
    return adding;
  }
}
