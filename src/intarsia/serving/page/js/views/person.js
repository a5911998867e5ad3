/** One principal: its rules, keys and grants, each of which can be taken away. */

import { announce, button, h, icon, notice, prose, refill, table } from "../dom.js";
import { counted, end, sentence } from "../words.js";
import { change, confirm, confirmByName } from "./confirm.js";
import { scopeBoxes } from "./keys.js";
import { ruleFields, rulesOf } from "./rules.js";
import { endField, quotaField } from "./terms.js";

let cards = 0;

export class PersonCard {
  #session;
  #people;
  #id = `person-${cards++}`;

  /**
   * @param {object} person as the service lists it
   * @param {import("./people.js").PeopleView} people told when something has changed
   * @param {Set<string>} open the names of those that stand open
   */
  constructor(session, person, people, open) {
    this.#session = session;
    this.#people = people;
    this.name = person.name;
    this.words = [person.name, ...person.grants.map(({ source }) => source)].join(" ").toLowerCase();
    this.body = h("div", { class: "person-body" });
    this.said = h("div", { "aria-live": "polite" });
    const facts = [counted(person.keys.length, "key"), counted(person.grants.length, "grant"), rulesOf(person)];
    this.element = h(
      "details",
      { class: "card person", open: open.has(person.name) },
      h(
        "summary",
        {},
        h("h2", { text: person.name }),
        h("span", { class: "facts", text: facts.filter(Boolean).join(" · ") }),
      ),
      this.body,
      this.said,
    );
    this.element.addEventListener("toggle", () => {
      if (this.element.open) open.add(person.name);
      else open.delete(person.name);
      if (this.element.open && !this.body.hasChildNodes()) this.#load();
    });
  }

  /** Show it if it fits all words; returns whether it does. */
  matches(words) {
    this.element.hidden = !words.every((word) => this.words.includes(word));
    return !this.element.hidden;
  }

  get #path() {
    return `v1/principals/${encodeURIComponent(this.name)}`;
  }

  async #load() {
    try {
      const person = await this.#session.api.get(this.#path);
      refill(this.body, this.#rules(person), this.#keys(person), this.#grants(person), this.#removal());
    } catch (error) {
      refill(this.body, notice("error", error.message));
    }
  }

  #rules(person) {
    const id = `${this.#id}-rules`;
    const words = rulesOf(person);
    return h(
      "section",
      { class: "person-part", "aria-labelledby": id },
      h("h3", { id, text: "Rules" }),
      h("p", { class: "hint", text: words ? sentence(words) : "None: it may draw from all that was granted." }),
      button("Change …", () => this.#changeRules(person), {
        kind: "small",
        label: `Change the rules of ${this.name}`,
      }),
    );
  }

  #keys({ keys }) {
    const rows = keys.map((key) =>
      h(
        "tr",
        {},
        h("td", { class: "mono", text: key.id }),
        h("td", { class: "wrap", text: key.scopes.join(", ") }),
        h("td", {}, ...ending(key.until)),
        h(
          "td",
          { class: "acts" },
          button("Change …", () => this.#changeKey(key), { kind: "small", label: `Change key ${key.id}` }),
          button("Withdraw …", () => this.#withdraw(key.id), { kind: "small", label: `Withdraw key ${key.id}` }),
        ),
      ),
    );
    const scopes = scopeBoxes("What it is for");
    const until = endField("It ends on");
    const submit = (event) => {
      event.preventDefault();
      if (!scopes.chosen.length) return this.#say(notice("error", "Say what the key is for: tick at least one."));
      return this.#act(async () => {
        const { key } = await this.#session.api.post(`${this.#path}/keys`, { scopes: scopes.chosen, until: until.value });
        this.#people.shown.show(this.name, key);
      });
    };
    return this.#part("keys", "Keys", ["Key", "For", "Ends", ""], rows, "No key: nobody can come under this name.", [
      h("summary", { text: "Make another key" }),
      h("form", { class: "adding", on: { submit } }, scopes.element, until.element, send("Make it", "key")),
    ]);
  }

  #grants({ grants }) {
    const rows = grants.map((grant) =>
      h(
        "tr",
        {},
        h("td", { class: "wrap whole" }, h("b", { text: grant.source }), ...standing(grant)),
        h("td", {}, ...ending(grant.until)),
        h("td", { text: grant.quota === null ? "no limit" : `${grant.used} of ${grant.quota.replace("/", " per ")}` }),
        h(
          "td",
          { class: "acts" },
          button("Change …", () => this.#changeGrant(grant), {
            kind: "small",
            label: `Change the grant of ${grant.source} to ${this.name}`,
          }),
          button("Take away …", () => this.#revoke(grant.source), {
            kind: "small",
            label: `Take ${grant.source} away from ${this.name}`,
          }),
        ),
      ),
    );
    return this.#part("grants", "Granted", ["Source", "Until", "Pictures", ""], rows, "Nothing: it may draw nothing.", [
      h("summary", { text: "Grant sources" }),
      this.#granting(new Set(grants.map(({ source }) => source))),
    ]);
  }

  #granting(has) {
    const boxes = this.#session.sources.map(({ name, owner, licence }) => {
      const box = h("input", { type: "checkbox", name: "source", value: name });
      const facts = [owner, licence, has.has(name) && "granted already, is replaced"].filter(Boolean).join(" · ");
      return h("label", { class: "choice" }, box, h("span", {}, name, h("small", { class: "hint", text: ` ${facts}` })));
    });
    const chosen = h("fieldset", {}, h("legend", { text: "Sources" }), h("div", { class: "picks" }, ...boxes));
    const until = endField("Until");
    const quota = quotaField();
    const submit = (event) => {
      event.preventDefault();
      const sources = [...chosen.querySelectorAll("input:checked")].map(({ value }) => value);
      if (!sources.length) return this.#say(notice("error", "No source is chosen. Tick at least one."));
      return this.#act(() => this.#grant(sources, until, quota), `${sources.join(", ")} granted to ${this.name}.`);
    };
    return h(
      "form",
      { class: "adding", novalidate: true, on: { submit } },
      chosen,
      h("div", { class: "fields two" }, until.element, quota.element),
      send("Grant", "check"),
    );
  }

  #grant(sources, until, quota) {
    const terms = { until: until.value, quota: quota.value };
    return this.#session.api.post("v1/grants", { principal: this.name, sources, ...terms });
  }

  async #changeRules(person) {
    const fields = ruleFields(person);
    const done = await change({
      title: `The rules of “${this.name}”`,
      parts: fields.parts,
      act: () => this.#session.api.put(`${this.#path}/rules`, fields.value),
    });
    if (done) await this.#changed(`The rules of ${this.name} are changed.`);
  }

  async #changeKey({ id, scopes, until }) {
    const boxes = scopeBoxes("What it is for", scopes);
    const ends = endField("It ends on", until);
    const done = await change({
      title: `The key ${id}`,
      parts: [boxes.element, ends.element],
      act: async () => {
        if (!boxes.chosen.length) throw new Error("Say what the key is for: tick at least one.");
        await this.#session.api.put(`${this.#path}/keys/${id}`, { scopes: boxes.chosen, until: ends.value });
      },
    });
    if (done) await this.#changed(`The key ${id} is changed.`);
  }

  async #changeGrant({ source, until, quota }) {
    const ends = endField("Until", until);
    const most = quotaField(quota);
    const done = await change({
      title: `“${source}” for “${this.name}”`,
      parts: [h("div", { class: "fields two" }, ends.element, most.element)],
      act: () => this.#grant([source], ends, most),
    });
    if (done) await this.#changed(`The grant of ${source} is changed.`);
  }

  #removal() {
    return h(
      "div",
      { class: "submit" },
      button("Remove …", () => this.#remove(), { kind: "danger", symbol: "cross", label: `Remove ${this.name}` }),
    );
  }

  /** A table with its head, what to say where it is empty, and what folds out below. */
  #part(kind, title, heads, rows, empty, more) {
    const id = `${this.#id}-${kind}`;
    return h(
      "div",
      { class: "person-part" },
      h("h3", { id, text: title }),
      rows.length ? table(heads, rows, { "aria-labelledby": id }) : h("p", { class: "hint", text: empty }),
      h("details", { class: "advanced" }, ...more),
    );
  }

  async #withdraw(id) {
    const sure = await confirm({
      title: `Withdraw the key ${id}?`,
      does: "Withdraw it",
      keeps: "Keep it",
      parts: [h("p", { text: `Whoever uses this key of “${this.name}” is refused from the next request on.` })],
    });
    if (sure) await this.#act(() => this.#session.api.delete(`${this.#path}/keys/${id}`), `Key ${id} is withdrawn.`);
  }

  async #revoke(source) {
    const words = `From now on nothing is drawn from “${source}” for “${this.name}”. What is being drawn ends without pictures.`;
    const sure = await confirm({
      title: `Take “${source}” away?`,
      does: "Take it away",
      keeps: "Keep it",
      parts: [h("p", { text: words })],
    });
    const path = `v1/grants/${encodeURIComponent(this.name)}/${encodeURIComponent(source)}`;
    if (sure) await this.#act(() => this.#session.api.delete(path), `${source} was taken from ${this.name}.`);
  }

  async #remove() {
    const sure = await confirmByName({
      title: `Remove “${this.name}”?`,
      name: this.name,
      does: "Remove",
      parts: [h("p", { text: "Its keys and grants go for good. What is being drawn for it ends without pictures." })],
    });
    if (sure) await this.#act(() => this.#session.api.delete(this.#path), `${this.name} is removed.`);
  }

  /** Do something that changes what there is; say what was done, or why not. */
  async #act(act, words = "") {
    try {
      await act();
      await this.#changed(words);
    } catch (error) {
      this.#say(notice("error", error.message));
    }
  }

  async #changed(words) {
    if (words) announce(words);
    await this.#people.changed(this.name);
  }

  #say(what) {
    refill(this.said, what);
  }
}

const send = (text, symbol) =>
  h("div", { class: "submit" }, h("button", { type: "submit", class: "button" }, icon(symbol), h("span", { text })));

const ending = (until) => [h("span", { text: until ? end(until) : "no end" }), until && new Date(until) < new Date() && over()];

const over = () => h("small", { class: "overdue" }, icon("warn"), "over");

/** Why a grant does not help; nothing where it does. */
const standing = ({ permitted, reason }) =>
  permitted ? [] : [h("small", { class: "below why" }, icon("lock"), " ", ...prose(sentence(reason)))];
