/** Numbers, dates and the vault's own words, as people say them. */

/** How sources are weighed, by the name that the service knows. */
export const WEIGHTS = {
  gaussian: [
    "By likeness",
    "Each source counts with the probability that the noisy picture came from it. The usual choice.",
  ],
  reference: [
    "By likeness, learned",
    "As by likeness, with a small head per source that was fitted to tell it from public data.",
  ],
  prototype: [
    "By nearest centroids",
    "The nearer the forming picture is to a source's typical pictures, the more that source counts.",
  ],
  ito: [
    "By the path so far",
    "The source that best predicted the steps so far counts most. Wants the routing “everybody”.",
  ],
  diffusion_classifier: [
    "By denoising error",
    "Each source is asked how well it explains the picture. Slow, and the most telling.",
  ],
  prior: ["By size", "Sources count by how many pictures they hold, whatever is being drawn."],
  uniform: ["All the same", "Every source counts the same at every step. A baseline."],
  soup: [
    "One averaged network",
    "What the sources learned is averaged into one network. A baseline: it cannot say whose share a picture is.",
  ],
  joint: [
    "By a joint classifier",
    "A classifier that saw all sources at once. Not isolated: forgetting any source breaks it.",
  ],
};

/** Who runs at all, likewise. */
export const ROUTING = {
  threshold: [
    "Whoever matters",
    "Sources whose weight is negligible at a step do not run for that picture. The usual choice.",
  ],
  full: ["Everybody, always", "All sources run at every step."],
  top_k: ["Only the strongest", "At each step only the sources with the largest weights run."],
  ancestral: [
    "One per picture, by lot",
    "One source is drawn by its size before the first step and draws the whole picture.",
  ],
  posterior: ["One per step, by weight", "At each step one source is drawn by its weight."],
  sticky: ["One, while it is likely", "One source is drawn by its weight and kept until it becomes unlikely."],
  random: ["One per step, by lot", "At each step one source is drawn by its size. A baseline."],
};

/** What the scopes of a key allow. */
export const SCOPES = {
  sample: "Draw pictures",
  credit: "Ask who is owed credit for a picture",
  read: "See the sources, the ledger and receipts",
  erase: "Work off requests, and forget sources and pictures",
  admin: "See everything, and say who may draw from what",
};

/** What a licence may ask for, and somebody may refuse. */
export const OBLIGATIONS = {
  "share-alike": "Share alike",
  "non-commercial": "Non-commercial use only",
  "no-derivatives": "No changes",
  attribution: "Naming the author",
};

/** A kind of weights or routing in words: `[name, what it does]`; `top_k:2` is that of `top_k`. */
export function mode(table, kind) {
  const [name, number] = String(kind).split(":");
  const [title, explained] = table[name] ?? [name, ""];
  return [number === undefined || name === "threshold" ? title : `${title} (${number})`, explained];
}

/** A share in percent: 0.123 is "12 %". */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  if (share > 0 && share < 0.005) return "< 1 %";
  return `${Math.round(share * 100)} %`;
}

/** An interval in percent: "55–70 %". */
export function percents(low, high) {
  const [from, to] = [low, high].map((share) => Math.round(share * 100));
  return from === to ? percent(high) : `${from}–${to} %`;
}

/** What the service says, which begins and ends as its lines on a terminal do, as a sentence. */
export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…:]$/.test(begun) ? begun : `${begun}.`;
}

/** "1 picture", "3 pictures". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A span of seconds, roughly. */
export function span(seconds) {
  if (seconds < 1) return "under a second";
  if (seconds < 90) return counted(Math.round(seconds), "second");
  if (seconds < 5400) return counted(Math.round(seconds / 60), "minute");
  return counted(Math.round(seconds / 3600), "hour");
}

const DAY_LONG = 86_400_000;
const DAY = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "numeric", timeZone: "UTC" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });

/** A day in UTC; what is no date is said as it stands. */
export function day(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? String(text ?? "") : DAY.format(date);
}

/** A moment in UTC. */
export function moment(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? String(text ?? "") : `${MOMENT.format(date)} UTC`;
}

/** When something ends: the last day that counts whole, or a moment within a day. */
export function end(text) {
  const last = lastDay(text);
  return last ? day(last) : moment(text);
}

/** The day to whose end something lasts, as a form has it; null where it ends within a day. */
export function lastDay(text) {
  const date = new Date(text);
  const midnight = date.getTime() % DAY_LONG === 0;
  return midnight ? new Date(date.getTime() - DAY_LONG).toISOString().slice(0, 10) : null;
}

/** Whole days from now until a moment; negative when it has passed. */
export function daysUntil(text) {
  return Math.ceil((new Date(text).getTime() - Date.now()) / DAY_LONG);
}
