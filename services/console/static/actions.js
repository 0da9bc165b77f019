// What changes something: in one click with the reason that stands in the field, or, where it
// cannot be taken back, after a question.

import { change } from "./api.js";
import { el, say } from "./dom.js";
import { refusal } from "./words.js";

const REASON = "pairloop.reason";
const reason = () => sessionStorage.getItem(REASON) ?? "from the console";

export function reasonField() {
  const field = el("input", { id: "reason", maxlength: "500", value: reason(), autocomplete: "off",
    onchange: (event) => sessionStorage.setItem(REASON, event.target.value) });
  return el("label", { class: "reason" }, "Reason", field);
}

// Buttons that were pressed a moment ago: the second click of a double one, or a key held down, is
// not to undo what the first did, now that the button says the opposite.
const resting = new WeakSet();
const REST_MS = 600;

// `after` is called with what was answered; what was refused is shown in `place`. Buttons of one
// `key` are the same one with another text, which keeps the focus.
export function button(text, method, body, { after, place, sure, label, quiet, key }) {
  const work = async (event) => {
    const pressed = event.currentTarget;
    if (resting.has(pressed)) return;
    const because = document.getElementById("reason")?.value ?? reason();
    if (sure && !(await agreed(sure, text))) return;
    resting.add(pressed);
    const wanted = typeof body === "function" ? body() : body;
    try {
      const answer = await change(method, { ...wanted, reason: because });
      place().replaceChildren(...(answer.note ? [el("div", { class: "note" }, answer.note)] : []));
      say(`${label ?? text}: asked for`);
      after(answer);
    } catch (error) {
      place().replaceChildren(refusal(error));
    } finally {
      setTimeout(() => resting.delete(pressed), REST_MS);
    }
  };
  return el("button", { type: "button", class: sure ? "danger" : quiet ? "quiet-button" : "",
    "aria-label": label, "data-key": key ?? method, onclick: work }, text);
}

function agreed(question, text) {
  return new Promise((resolve) => {
    const back = document.activeElement;
    const ended = (answer) => () => {
      dialog.close();
      dialog.remove();
      back?.focus();
      resolve(answer);
    };
    const dialog = el("dialog", { "aria-label": text },
      el("p", {}, question),
      el("div", { class: "buttons" },
        el("button", { type: "button", class: "danger", onclick: ended(true) }, text),
        el("button", { type: "button", autofocus: true, onclick: ended(false) }, "Leave it")));
    dialog.addEventListener("cancel", ended(false));
    document.body.append(dialog);
    dialog.showModal();
  });
}
