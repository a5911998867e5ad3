/** Questions before something is taken away; what cannot be undone is answered by typing a name. */

import { button, byId, h, notice, refill } from "../dom.js";

/**
 * @param {{title: string, name: string, does: string, parts: Node[]}} about `does` stands on the button
 * @returns {Promise<boolean>} whether it was confirmed
 */
export function confirmByName({ title, name, does, parts }) {
  const typed = h("input", {
    id: "confirm-name",
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": "confirm-hint",
  });
  const go = h(
    "button",
    { type: "submit", class: "button danger", value: "yes", disabled: true },
    h("span", { text: does }),
  );
  typed.addEventListener("input", () => (go.disabled = typed.value.trim() !== name));
  const field = h(
    "div",
    { class: "field" },
    h("label", { for: "confirm-name" }, "Type ", h("code", { text: name }), " to confirm"),
    typed,
    h("p", { class: "hint", id: "confirm-hint", text: "It cannot be undone." }),
  );
  return asked({ title, parts: [...parts, field], go, keeps: "Keep everything", first: typed }).then(
    (sure) => sure && typed.value.trim() === name,
  );
}

/**
 * A question for what can be given again.
 *
 * @param {{title: string, does: string, keeps: string, parts: Node[]}} about `does` and `keeps` stand on the buttons
 * @returns {Promise<boolean>} whether it was confirmed
 */
export function confirm({ title, does, keeps, parts }) {
  const go = h("button", { type: "submit", class: "button danger", value: "yes" }, h("span", { text: does }));
  return asked({ title, parts, go, keeps });
}

/**
 * Change what there is: the dialog stays until that was done, and says why if it cannot be.
 *
 * @param {{title: string, parts: Node[], act: () => Promise<void>}} about `act` throws what is to be said
 * @returns {Promise<boolean>} whether it was done
 */
export function change({ title, parts, act }) {
  const said = h("div", { "aria-live": "polite" });
  const go = h("button", { type: "submit", class: "button primary" }, h("span", { text: "Change it" }));
  const submit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await act();
      byId("confirm").close("yes");
    } catch (error) {
      refill(said, notice("error", error.message));
    }
    go.disabled = false;
  };
  const [first] = parts.flatMap((part) => [...part.querySelectorAll("input")]);
  return asked({ title, parts: [...parts, said], go, keeps: "Leave it", first, submit });
}

/** Show the dialog; `first` has the focus, or else what changes nothing. */
function asked({ title, parts, go, keeps, first = null, submit = null }) {
  const dialog = byId("confirm");
  const keep = button(keeps, () => dialog.close(""));
  refill(
    byId("confirm-form"),
    h("h2", { id: "confirm-title", text: title }),
    ...parts,
    h("div", { class: "submit" }, go, keep),
  );
  byId("confirm-form").onsubmit = submit;
  dialog.returnValue = "";
  dialog.showModal();
  (first ?? keep).focus();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true });
  });
}
