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

// `after` is called with what was answered; what was refused is shown in `place`.
export function button(text, method, body, { after, place, sure, label, quiet }) {
  const work = async (event) => {
    const pressed = event.currentTarget;
    if (pressed.getAttribute("aria-disabled") === "true") return;
    const because = document.getElementById("reason")?.value ?? reason();
    if (sure && !(await agreed(sure, text))) return;
    pressed.setAttribute("aria-disabled", "true");
    const wanted = typeof body === "function" ? body() : body;
    try {
      const answer = await change(method, { ...wanted, reason: because });
      place().replaceChildren(...(answer.note ? [el("div", { class: "note" }, answer.note)] : []));
      say(`${label ?? text}: asked for`);
      after(answer);
    } catch (error) {
      place().replaceChildren(refusal(error));
    } finally {
      pressed.removeAttribute("aria-disabled");
    }
  };
  return el("button", { type: "button", class: sure ? "danger" : quiet ? "quiet-button" : "",
    "aria-label": label, "data-key": `${method} ${text}`, onclick: work }, text);
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
        el("button", { type: "button", onclick: ended(false) }, "Leave it")));
    dialog.addEventListener("cancel", ended(false));
    document.body.append(dialog);
    dialog.showModal();
  });
}
