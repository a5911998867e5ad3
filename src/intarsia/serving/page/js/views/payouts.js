/** How an amount would be split by what the sources earned in a month. */

import { announce, button, byId, download, h, notice, refill, table } from "../dom.js";
import { bars } from "../charts/bars.js";
import { counted } from "../words.js";

export class PayoutsView {
  #session;

  constructor(session) {
    this.#session = session;
    this.host = byId("payouts");
    this.answer = h("div", { class: "card", "aria-live": "polite", hidden: true });
    this.month = h("input", {
      id: "period",
      type: "month",
      value: new Date().toISOString().slice(0, 7),
      required: true,
    });
    this.amount = h("input", {
      id: "amount",
      inputmode: "decimal",
      value: "1000.00",
      autocomplete: "off",
      required: true,
    });
    this.currency = h("input", {
      id: "currency",
      value: "EUR",
      maxlength: 3,
      autocomplete: "off",
      spellcheck: "false",
      required: true,
    });
  }

  show() {
    const field = (name, text, control) => h("div", { class: "field" }, h("label", { for: name, text }), control);
    refill(
      this.host,
      h(
        "header",
        {},
        h("h1", { id: "payouts-title", text: "Payouts" }),
        h("p", {
          class: "lead",
          text: "An amount, split by who shaped the pictures of a month. Who left since is still owed for what was drawn before.",
        }),
      ),
      h(
        "form",
        { class: "request card", novalidate: true, on: { submit: (event) => this.#ask(event) } },
        field("period", "Month", this.month),
        field("amount", "Amount", this.amount),
        field("currency", "Currency", this.currency),
        h("button", { type: "submit", class: "button primary" }, h("span", { text: "Split it" })),
      ),
      this.answer,
    );
  }

  async #ask(event) {
    event.preventDefault();
    const asked = new URLSearchParams({
      amount: this.amount.value.trim(),
      period: this.month.value,
      currency: this.currency.value.trim(),
    });
    this.answer.hidden = false;
    refill(this.answer, h("p", { class: "hint", text: "Adding up …" }));
    try {
      const statement = await this.#session.api.get(`v1/payouts?${asked}`);
      refill(this.answer, ...told(statement));
      announce(`${statement.amount} ${statement.currency} split among ${counted(statement.lines.length, "source")}.`);
    } catch (error) {
      refill(this.answer, notice("error", error.message));
    }
  }
}

function told(statement) {
  const { lines, currency, amount, minor, period, closed, earlier } = statement;
  const drawn = `${counted(statement.images, "picture")} in ${counted(statement.sets, "set")}`;
  return [
    h("h2", { text: `${amount} ${currency} for ${drawn}` }),
    !closed && notice("info", `${period} is not over: what is still drawn in it is not here.`),
    earlier.length > 0 &&
      notice("warn", `The ledger tells of payouts for a period that overlaps: entries ${earlier.join(", ")}.`),
    bars(lines.map((line) => ({ source: nameOf(line), share: minor ? line.minor / minor : 0 }))),
    table(
      ["Source", "Owner", "Credit in pictures", currency],
      lines.map((line) =>
        h(
          "tr",
          {},
          h("td", { class: "wrap", text: nameOf(line) }),
          h("td", { class: "wrap", text: line.owner ?? "" }),
          h("td", { class: "number right", text: Number(line.images).toFixed(2) }),
          h("td", { class: "number right", text: line.amount }),
        ),
      ),
      { "aria-label": "The split as a table" },
    ),
    h(
      "div",
      { class: "actions" },
      button("Save as CSV", () => save(statement), { symbol: "save" }),
    ),
    h("p", {
      class: "hint",
      text: "This is a sum, no payment: the command “intarsia payout” tells the ledger of one and writes its receipt.",
    }),
  ];
}

/** A source that has left is told by its account alone. */
const nameOf = ({ source, account }) => source ?? `left (${account})`;

function save({ period, currency, lines }) {
  const head = ["source", "owner", "account", "images", "amount", "currency", "period"];
  const rows = lines.map(({ source, owner, account, images, amount }) => [
    source ?? "",
    owner ?? "",
    account,
    images,
    amount,
    currency,
    period,
  ]);
  const text = [head, ...rows].map((row) => row.map(field).join(",")).join("\r\n");
  download(`payouts-${period}.csv`, new Blob([text], { type: "text/csv" }));
}

/** A field of a CSV; a name that a spreadsheet would take for a formula gets an apostrophe. */
function field(text) {
  const tame = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${tame.replaceAll('"', '""')}"`;
}
