/** The ledger: what was done, and this browser's own check of it. */

import { announce, button, byId, h, icon, meter, notice, refill } from "../dom.js";
import { Broken, hex, Unable } from "../ledger/bytes.js";
import { checkEntry, checkGrowth, checkWhole, entriesOf, remember, remembered, signedHead } from "../ledger/log.js";
import { counted, moment } from "../words.js";
import { receiptCard } from "./receipts.js";

const SHOWN = 50;

/** What the ledger's events mean. */
const EVENTS = {
  init: "The vault was made",
  ingest: "A source came",
  train: "Compartments were trained",
  compose: "Sources were joined",
  sample: "Pictures were drawn",
  grant: "A grant was given",
  revoke: "A grant was taken back",
  permit: "A source may be learned from",
  forbid: "A source may not be learned from any more",
  forget: "Something was forgotten",
  extend: "Pictures came to a source",
  import: "A compartment came from its owner",
  ticket: "A request was received or closed",
  credit: "Credit was worked out",
  payout: "An amount was split",
};

export class LedgerView {
  #session;
  #head = null;

  constructor(session) {
    this.#session = session;
    this.host = byId("ledger");
  }

  async show() {
    this.verdict = h("div", { class: "verdict" });
    this.facts = h("dl", { class: "facts-list" });
    this.rows = h("tbody", {});
    this.more = button("Show earlier ones", () => this.#page(), { kind: "small", hidden: true });
    this.check = button("Check it in this browser", () => this.#checkAll(), { kind: "primary", symbol: "seal" });
    refill(
      this.host,
      h(
        "header",
        {},
        h("h1", { id: "ledger-title", text: "Ledger" }),
        h("p", {
          class: "lead",
          text: "Every training, drawing, grant and forgetting is an entry in a list that only grows, under a signed root. You need not believe us: your browser can do the sums.",
        }),
      ),
      h(
        "section",
        { class: "card", "aria-label": "The signed head" },
        // The facts come last, since they arrive late: they move nothing that is to be pressed.
        h("div", { class: "submit" }, this.check),
        this.verdict,
        this.facts,
      ),
      receiptCard(() => this.#head?.key.text ?? null),
      h(
        "section",
        { class: "card", "aria-labelledby": "entries-title" },
        h("h2", { id: "entries-title", text: "Entries" }),
        h("p", {
          class: "hint",
          text: "The newest first. Which sources an entry speaks of is sealed: a receipt opens the seals of one entry.",
        }),
        h(
          "div",
          { class: "scroll plain", tabindex: 0, role: "region", "aria-labelledby": "entries-title" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h("tr", {}, ...["No.", "What", "About", "Proof"].map((text) => h("th", { scope: "col", text }))),
            ),
            this.rows,
          ),
        ),
        this.more,
      ),
    );
    const { api } = this.#session;
    this.#head = null; // the one of an earlier visit does not cover the newest entries
    try {
      ({ size: this.next } = await api.get("v1/ledger"));
      try {
        this.#head = await signedHead(api);
        this.#showHead();
      } finally {
        await this.#page(); // after the head, which would push their buttons down; and also where that does not hold
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  #showHead() {
    const { head, key } = this.#head;
    const before = remembered(head.origin);
    const facts = [
      ["Entries", head.size.toLocaleString("en")],
      ["Root", `${hex(head.root).slice(0, 24)}…`],
      ["Log", head.origin],
      ["Signing key", key.text],
      before && ["Checked here last", moment(before.seen)],
    ].filter(Boolean);
    refill(
      this.facts,
      ...facts.map(([name, value]) =>
        h(
          "div",
          {},
          h("dt", { text: name }),
          h("dd", { class: name === "Entries" || name.startsWith("Checked") ? "" : "mono", text: value }),
        ),
      ),
    );
  }

  async #checkAll() {
    this.check.disabled = true;
    const bar = meter("How much is checked", 0);
    refill(this.verdict, bar);
    const found = h("ul", { class: "findings" });
    const holds = (text) => found.append(h("li", {}, icon("check"), h("span", { text })));
    try {
      this.#head = await signedHead(this.#session.api);
      const { head, key } = this.#head;
      if (head.signed) holds(`The signature under the head is that of the key ${hex(key.id)}.`);
      const before = remembered(head.origin);
      if (before && before.key !== key.text)
        throw new Broken(`The log was signed by another key when you were here on ${moment(before.seen)}.`);
      await checkWhole(this.#session.api, head, (done) => (bar.value = done));
      holds(
        `The ${head.size.toLocaleString("en")} entries together have the signed root: none was changed, removed or added.`,
      );
      if (before) {
        const earlier = await checkGrowth(this.#session.api, before.note, this.#head);
        holds(
          `It goes on from the ${earlier.size.toLocaleString("en")} entries that you saw on ${moment(before.seen)}: nothing of them was rewritten.`,
        );
      }
      remember(this.#head);
      this.#showHead();
      const kind = head.signed ? "good" : "warn";
      const words = head.signed
        ? "The ledger holds together."
        : "The sums are right; this browser cannot check Ed25519 signatures, so who signed was not checked.";
      refill(this.verdict, notice(kind, words, found, h("p", { class: "hint", text: limits(before) })));
      announce(words);
    } catch (error) {
      this.#fail(error, found);
    } finally {
      this.check.disabled = false;
    }
  }

  #fail(error, found = null) {
    const kind = error instanceof Unable ? "warn" : "error";
    refill(
      this.verdict,
      notice(
        kind,
        error instanceof Broken ? `It does not hold. ${error.message}` : error.message,
        found?.children.length ? found : null,
      ),
    );
  }

  async #page() {
    const start = Math.max(0, this.next - SHOWN);
    const entries = await entriesOf(this.#session.api, start, this.next);
    this.rows.append(...entries.reverse().map((entry) => this.#row(entry)));
    this.next = start;
    this.more.hidden = start === 0;
  }

  #row(entry) {
    const { index, entry: record } = entry;
    const { length } = record.sources;
    const cell = h("td", {});
    const prove = button(
      "Check",
      async () => {
        prove.disabled = true;
        try {
          const { api } = this.#session;
          this.#head ??= await signedHead(api);
          const count = await checkEntry(api, entry, this.#head.head);
          refill(cell, h("span", { class: "proved" }, icon("check"), `In the log (${count} hashes)`));
          announce(`Entry ${index} is in the log.`);
        } catch (error) {
          refill(cell, notice(error instanceof Unable ? "warn" : "error", error.message));
        }
      },
      { kind: "small", label: `Check entry ${index} in this browser` },
    );
    cell.append(prove);
    return h(
      "tr",
      {},
      h("td", { class: "number", text: index }),
      h(
        "td",
        { class: "wrap" },
        h("span", { text: EVENTS[record.event] ?? record.event }),
        h("small", { class: "below" }, h("time", { datetime: record.time, text: moment(record.time) }), detail(record)),
      ),
      h("td", { class: "wrap narrow", text: length ? `${counted(length, "source")}, sealed` : "–" }),
      cell,
    );
  }
}

function detail({ event, about }) {
  if (event === "sample") return ` · ${counted(about.count, "picture")}, seed ${about.settings?.seed ?? "–"}`;
  if (event === "forget") return about.scope === "source" ? " · a whole source" : " · single pictures";
  if (event === "ticket") return ` · ${about.state}`;
  return "";
}

const limits = (before) =>
  `${before ? "" : "This was the first check in this browser: it remembers the head, and next time shows that nothing before it was rewritten. "}It does not show that what the entries say was done, nor that nothing else was.`;
