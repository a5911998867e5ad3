/** Erasure: requests with their dates, and the forgetting that answers them. */

import { announce, button, byId, h, icon, notice, refill, table } from "../dom.js";
import { counted, day, daysUntil, lastDay } from "../words.js";
import { ForgetCard } from "./forget.js";
import { sourceOptions } from "./sources.js";

const STATES = { open: "Open", done: "Done", closed: "Closed without forgetting" };

export class ErasureView {
  #session;

  constructor(session) {
    this.#session = session;
    this.host = byId("erasure");
  }

  async show() {
    // The line stands where the answer will, so that nothing below it moves under a pointer when that comes.
    this.tickets = h("div", {}, h("p", { class: "hint", text: "Asking for the requests …" }));
    this.said = h("div", { "aria-live": "polite" });
    const erases = this.#session.can("erase");
    refill(
      this.host,
      h(
        "header",
        {},
        h("h1", { id: "erasure-title", text: "Erasure" }),
        h("p", {
          class: "lead",
          text: "A source, or one picture of it, can leave. What is left is what there would be if it had never been there.",
        }),
      ),
      h(
        "section",
        { class: "card", "aria-labelledby": "tickets-title" },
        h("h2", { id: "tickets-title", text: "Requests" }),
        this.tickets,
        erases && this.#open(),
        this.said,
      ),
      erases
        ? new ForgetCard(this.#session, () => this.#changed()).element
        : notice("info", "This key may not forget. A key with the scope “erase” may."),
    );
    await this.#list();
  }

  /** Something was forgotten: there are other sources and other requests now. */
  async #changed() {
    await Promise.allSettled([this.#session.refresh(), this.#list()]);
    for (const select of this.host.querySelectorAll("select")) refill(select, ...sourceOptions(this.#session));
  }

  async #list() {
    try {
      const { data } = await this.#session.api.get("v1/tickets");
      refill(
        this.tickets,
        data.length ? this.#table(data) : h("p", { class: "hint", text: "No request was received." }),
      );
    } catch (error) {
      refill(this.tickets, notice(error.status === 403 ? "info" : "error", error.message));
    }
  }

  #table(tickets) {
    const heads = ["Request", "About", "Received", "Due", "State", ""];
    return table(
      heads,
      tickets.map((ticket) => this.#row(ticket)),
      { "aria-labelledby": "tickets-title" },
    );
  }

  #row(ticket) {
    const { id, state, source, count, whole, received, due, reason } = ticket;
    const open = state === "open";
    const about = whole ? "a whole source" : counted(count, "picture");
    const close = h("td", { class: "acts" });
    if (open && this.#session.can("erase"))
      close.append(
        button("Close …", () => this.#close(ticket, close), {
          kind: "small",
          label: `Close request ${id} without forgetting`,
        }),
      );
    return h(
      "tr",
      {},
      h("td", { class: "mono", text: id }),
      h("td", { class: "wrap", text: source ? `${about}: ${source}` : about }),
      h("td", { text: day(received) }),
      h("td", {}, h("span", { text: day(lastDay(due) ?? due) }), open && dueNote(due)),
      h(
        "td",
        {},
        h("span", { text: STATES[state] ?? state }),
        reason && h("small", { class: "wrap", text: ` ${reason}` }),
      ),
      close,
    );
  }

  #close({ id }, cell) {
    const reason = h("input", { placeholder: "Why", "aria-label": `Why request ${id} is closed`, maxlength: 500 });
    const form = h(
      "form",
      { class: "inline", on: { submit: (event) => this.#closed(event, id, reason) } },
      reason,
      h("button", { class: "button small", type: "submit" }, h("span", { text: "Close" })),
    );
    refill(cell, form);
    reason.focus();
  }

  async #closed(event, id, reason) {
    event.preventDefault();
    if (!reason.value.trim())
      return refill(this.said, notice("error", "Say why the request is closed without forgetting."));
    await this.#tell(
      () => this.#session.api.post(`v1/tickets/${encodeURIComponent(id)}/close`, { reason: reason.value.trim() }),
      `Request ${id} is closed.`,
    );
  }

  #open() {
    const source = h("select", { id: "ticket-source" }, ...sourceOptions(this.#session));
    const ids = h("input", { id: "ticket-ids", autocomplete: "off", placeholder: "Empty: the whole source" });
    const received = h("input", { id: "ticket-received", type: "date" });
    const submit = async (event) => {
      event.preventDefault();
      const samples = ids.value.split(/[\s,]+/).filter(Boolean);
      const body = { source: source.value, samples: samples.length ? samples : null };
      if (received.value) body.received = `${received.value}T00:00:00Z`;
      await this.#tell(() => this.#session.api.post("v1/tickets", body), "The request is noted.");
    };
    return h(
      "details",
      { class: "advanced" },
      h("summary", { text: "Note a request" }),
      h(
        "form",
        { class: "request", novalidate: true, on: { submit } },
        h("div", { class: "field" }, h("label", { for: "ticket-source", text: "Source" }), source),
        h("div", { class: "field" }, h("label", { for: "ticket-ids", text: "Ids of the pictures" }), ids),
        h("div", { class: "field" }, h("label", { for: "ticket-received", text: "Received on" }), received),
        h("button", { type: "submit", class: "button" }, h("span", { text: "Note it" })),
      ),
    );
  }

  async #tell(act, words) {
    try {
      await act();
      refill(this.said, notice("good", words));
      announce(words);
      await this.#list();
    } catch (error) {
      refill(this.said, notice("error", error.message));
    }
  }
}

function dueNote(due) {
  const days = daysUntil(due);
  if (days < 0) return h("small", { class: "overdue" }, icon("warn"), `${counted(-days, "day")} overdue`);
  return h("small", { text: days === 0 ? " today" : ` in ${counted(days, "day")}` });
}
