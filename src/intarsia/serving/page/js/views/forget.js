/** Forgetting: what it would cost, the question, the job, the receipt. */

import { announce, button, download, h, meter, notice, refill } from "../dom.js";
import { counted, span } from "../words.js";
import { confirmByName } from "./confirm.js";
import { sourceOptions } from "./sources.js";

const POLL = 700;
const MISSES = 5;

export class ForgetCard {
  #session;
  #plan = null;

  /** @param {() => void} forgotten called when something was forgotten */
  constructor(session, forgotten) {
    this.#session = session;
    this.forgotten = forgotten;
    this.source = h("select", { id: "forget-source" }, ...sourceOptions(session));
    this.ids = h("textarea", {
      id: "forget-ids",
      rows: 3,
      spellcheck: "false",
      placeholder: "One id per line",
      "aria-describedby": "forget-note",
    });
    this.part = h(
      "div",
      { class: "field", hidden: true },
      h("label", { for: "forget-ids", text: "Ids of the pictures" }),
      this.ids,
      h("p", {
        class: "hint",
        id: "forget-note",
        text: "As they stand in the source's manifest; the beginning of an id will do where it fits one picture alone.",
      }),
    );
    this.answer = h("div", { class: "answer", "aria-live": "polite" });
    const choice = (value, text, checked) =>
      h(
        "label",
        { class: "choice" },
        h("input", { type: "radio", name: "scope", value, checked, on: { change: () => this.#scope(value) } }),
        h("span", { text }),
      );
    this.element = h(
      "form",
      {
        class: "card",
        novalidate: true,
        "aria-labelledby": "forget-title",
        on: { submit: (event) => this.#foresee(event), input: () => this.#stale() },
      },
      h("h2", { id: "forget-title", text: "Forget" }),
      h("p", {
        class: "hint",
        text: "A whole source goes with everything that was learned from it. Single pictures go by training again from the last point before they joined.",
      }),
      h("div", { class: "field" }, h("label", { for: "forget-source", text: "Source" }), this.source),
      h(
        "fieldset",
        {},
        h("legend", { text: "What of it" }),
        choice("all", "All of it", true),
        choice("some", "Single pictures", false),
      ),
      this.part,
      h(
        "div",
        { class: "submit" },
        h("button", { type: "submit", class: "button" }, h("span", { text: "See what it would take" })),
      ),
      this.answer,
    );
  }

  #scope(value) {
    this.part.hidden = value === "all";
  }

  #stale() {
    if (this.#plan) refill(this.answer);
    this.#plan = null;
  }

  async #foresee(event) {
    event.preventDefault();
    const samples = this.part.hidden ? null : this.ids.value.split(/[\s,]+/).filter(Boolean);
    if (samples?.length === 0)
      return refill(this.answer, notice("error", "No id is given. Name at least one picture."));
    const request = { source: this.source.value, samples };
    refill(this.answer, h("p", { class: "hint", text: "Reckoning …" }));
    try {
      const plan = await this.#ask(request, true);
      this.#plan = request;
      refill(
        this.answer,
        foreseen(request, plan),
        h(
          "div",
          { class: "submit" },
          button("Forget …", () => this.#confirm(request, plan), { kind: "danger", symbol: "erase" }),
        ),
      );
    } catch (error) {
      refill(this.answer, notice("error", error.message));
    }
  }

  #ask({ source, samples }, dry) {
    return this.#session.api.post(`v1/sources/${encodeURIComponent(source)}/forget`, { samples, dry_run: dry });
  }

  async #confirm(request, plan) {
    const what = request.samples ? counted(request.samples.length, "picture") : "everything";
    const sure = await confirmByName({
      title: `Forget ${what} of “${request.source}”?`,
      name: request.source,
      does: "Forget",
      parts: [foreseen(request, plan)],
    });
    if (!sure) return;
    try {
      const { job } = await this.#ask(request, false);
      await this.#follow(job, request.source);
    } catch (error) {
      refill(this.answer, notice("error", error.message));
    }
  }

  async #follow(id, source) {
    const bar = meter("Forgetting", null);
    refill(this.answer, h("p", { text: "Forgetting … This page may be left; the work goes on." }), bar);
    announce("Forgetting has begun.");
    const job = await ended(this.#session.api, id, ({ step, steps }) => (bar.value = step / steps));
    this.#plan = null;
    this.forgotten();
    if (job.error)
      return refill(
        this.answer,
        notice("error", `What was asked for is gone, but not everything is trained again: ${job.error}.`),
      );
    const receipts = [...job.receipts, ...(job.result ?? []).flatMap((outcome) => outcome.receipts)];
    const words = `“${source}” was forgotten as asked. Pictures drawn from now on cannot depend on it.`;
    refill(
      this.answer,
      notice(
        "good",
        words,
        receipts.length > 0 && button("Save the receipt", () => save(source, receipts), { symbol: "seal" }),
      ),
    );
    announce(words);
  }
}

/** Ask for a job until it has ended; a few answers may go missing on the way. */
async function ended(api, id, progress) {
  for (let misses = 0; ;) {
    try {
      const job = await api.get(`v1/jobs/${encodeURIComponent(id)}`);
      misses = 0;
      if (job.progress.steps) progress(job.progress);
      if (job.state !== "waiting" && job.state !== "running") return job;
    } catch (error) {
      misses += 1;
      if (misses > MISSES || error.status >= 400) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
}

/** The plan of the service in words. */
function foreseen({ source, samples }, plan) {
  const again = plan.slices.length > 0 || plan.others.length > 0;
  const lost = plan.compartments.filter((name) => name !== source && !plan.others.some((other) => other.name === name));
  const lines = [
    samples === null
      ? "The source, its pictures and what was learned from them go for good."
      : `${counted(plan.samples.length, "picture")} will be gone for good, ${plan.left.toLocaleString("en")} stay.`,
    plan.slices.length > 0 && `Trained again: ${counted(plan.slices.length, "slice")}, ${counted(plan.steps, "step")}.`,
    plan.others.length > 0 &&
      `Trained again too, because they learned from it: ${plan.others.map(({ name }) => name).join(", ")}.`,
    lost.length > 0 && `Out of use, because they learned from it: ${lost.join(", ")}.`,
    plan.also_in.length > 0 && `Other sources hold some of these pictures too, and keep them: ${plan.also_in.join(", ")}.`,
    plan.because && `More than the pictures call for, because ${plan.because}.`,
    !again && "Nothing has to be trained again.",
    again && plan.seconds !== null && `That takes about ${span(plan.seconds)}.`,
  ];
  return h("ul", { class: "plan" }, ...lines.filter(Boolean).map((text) => h("li", { text })));
}

function save(source, receipts) {
  const document = JSON.stringify(receipts.length === 1 ? receipts[0] : { format: 1, receipts }, null, 2);
  download(`forgotten-${source}.json`, new Blob([document], { type: "application/json" }));
}
