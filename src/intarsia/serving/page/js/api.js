/** The service as the page sees it: JSON in and out, one kind of error, and streams of events. */

import { sentence } from "./words.js";

/** What the service refused, or what kept us from reaching it. `param` names the field that was at fault. */
export class ApiError extends Error {
  constructor(message, { status = 0, type = "", param = null, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, type, param, code, retryAfter });
  }

  /** Whether the key is missing or not valid, as against one that may not do this. */
  get unknownKey() {
    return this.status === 401;
  }
}

export class Api {
  /** @param {string} key the API key; empty asks without one. */
  constructor(key = "") {
    this.key = key;
  }

  async get(path) {
    return (await this.#ask("GET", path)).json();
  }

  async text(path) {
    return (await this.#ask("GET", path)).text();
  }

  async blob(path) {
    return (await this.#ask("GET", path)).blob();
  }

  async post(path, body) {
    return (await this.#ask("POST", path, body)).json();
  }

  async put(path, body) {
    return (await this.#ask("PUT", path, body)).json();
  }

  async delete(path) {
    await this.#ask("DELETE", path);
  }

  /** The events of a stream, as `{event, data}`; an event `error` is thrown. */
  async *events(path, body, signal) {
    const response = await this.#ask("POST", path, body, signal);
    for await (const { event, data } of parsed(response.body)) {
      if (data === "[DONE]") return;
      const value = JSON.parse(data);
      if (event === "error" || value.error)
        throw new ApiError(sentence((value.error ?? value).message), value.error ?? value);
      yield { event, data: value };
    }
  }

  async #ask(method, path, body, signal) {
    const headers = { Accept: "application/json" };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const request = { method, headers, signal, cache: "no-store" };
    if (body !== undefined) request.body = JSON.stringify(body);
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), request);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The service cannot be reached. Is it still running?");
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

async function refusal(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // Not our JSON: a proxy in between has answered.
  }
  const message = said.message
    ? sentence(said.message)
    : `The service answered ${response.status} ${response.statusText}.`;
  return new ApiError(message, { ...said, status: response.status, retryAfter });
}

/** Server-sent events (HTML standard, section 9.2.6) of a body: `event` and `data` of each. */
async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = "message";
  let lines = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const pieces = (rest + value).split(/\r?\n/);
      rest = pieces.pop();
      for (const line of pieces) {
        if (line === "") {
          if (lines.length) yield { event, data: lines.join("\n") };
          event = "message";
          lines = [];
        } else if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) lines.push(line.slice(5).replace(/^ /, ""));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
