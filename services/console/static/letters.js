// Prompts that kept failing, with why, and another try for them.

import { call } from "./api.js";
import { button } from "./actions.js";
import { el, foreign } from "./dom.js";
import { empty } from "./words.js";

const card = (letter) => el("li", { class: "card", "data-key": `${letter.stream} ${letter.prompt_id}` },
  el("div", { class: "title" }, el("code", {}, foreign(letter.prompt_id)),
    el("span", { class: "quiet" }, `episode ${letter.episode}, waited `,
      letter.stream === "prompts" ? "to be sampled" : "to be scored")),
  el("p", { class: "quiet" }, `${letter.failures} tries failed, ${letter.deaths} workers ended`),
  el("p", { class: "error" }, foreign(letter.error)));

export function lettersView(page, content, run) {
  const said = el("div"), place = el("div");
  content.append(said, place);
  const poll = page.keep(place, async () => {
    const { letters = [] } = await call("ListDeadLetters", { run });
    if (!letters.length) return empty("No dead letters.");
    return [
      el("div", { class: "buttons" }, button("Retry all", "RetryDeadLetters", { run }, {
        place: () => said,
        after: (answer) => {
          said.replaceChildren(el("div", { class: "note" }, `${answer.retried} are tried again`));
          poll.now();
        },
      })),
      el("ul", { class: "cards" }, letters.map(card)),
    ];
  }, 3000);
}
