// The browser of pairs: the prompt, every sample with its score, which two were taken, and why.
// All of it is text of models and data sets, so hostile: it goes through `foreign`.

import { call } from "./api.js";
import { el, foreign } from "./dom.js";
import { empty, number } from "./words.js";

const PAGE = 10;

const text = (label, value) => el("div", { class: "text", tabindex: "0", role: "group",
  "aria-label": label }, foreign(value));

function sample(each, index) {
  const kind = each.chosen ? "chosen" : each.rejected ? "rejected" : "";
  return el("li", { class: `sample ${kind}` },
    el("div", { class: "title" },
      el("span", {}, `sample ${index + 1}`), el("b", {}, number(each.score)),
      kind ? el("span", { class: `badge ${kind}` }, kind) : null),
    text(`sample ${index + 1}${kind && `, ${kind}`}`, each.text));
}

// Chosen first, then rejected, then the others from the best down.
const order = (one, other) => (other.chosen - one.chosen) || (other.rejected - one.rejected)
  || (other.score - one.score);

function card(pair, index) {
  const samples = (pair.samples ?? []).map((each, index) => [each, index])
    .sort(([one], [other]) => order(one, other)).map(([each, index]) => sample(each, index));
  const taken = (pair.samples ?? []).filter((each) => each.chosen || each.rejected).length;
  const rest = samples.length - taken;
  return el("li", { class: "card pair", "data-key": `${index} ${pair.prompt_id}` },
    el("div", { class: "title" },
      pair.prompt_id ? el("code", {}, foreign(pair.prompt_id)) : null,
      el("span", { class: "quiet" }, pair.episode ? `episode ${pair.episode}` : "before the episodes")),
    (pair.prompt ?? []).map(({ role, content }) => el("div", { class: "message" },
      el("span", { class: "role" }, foreign(role)), text(`prompt, ${role}`, content))),
    el("ol", { class: "samples" }, samples.slice(0, taken)),
    pair.why ? el("p", { class: "why" }, foreign(pair.why)) : null,
    rest ? el("details", {},
      el("summary", {}, `${rest} sample${rest > 1 ? "s that were" : " that was"} not taken`),
      el("ol", { class: "samples" }, samples.slice(taken))) : null);
}

export function pairsView(page, content, run) {
  const place = el("div");
  let before = [], at = "", next = "", episode = 0, poll = null;
  const go = (to) => {
    at = to;
    if (poll) page.drop(poll);
    poll = page.keep(place, look, 10000);
  };
  const turn = el("div", { class: "buttons turn" },
    el("label", {}, "Episode", el("input", { type: "number", min: "0", value: "", placeholder: "all",
      onchange: (event) => {
        episode = Math.max(0, Math.trunc(Number(event.target.value)) || 0);
        before = [];
        go("");
      } })),
    el("button", { type: "button", id: "previous", onclick: () => before.length && go(before.pop()) },
      "Previous"),
    el("button", { type: "button", id: "next", onclick: () => {
      if (!next) return;
      before.push(at);
      go(next);
    } }, "Next"));
  async function look() {
    const found = await call("ListPairs",
      { run, number: episode, page_size: PAGE, page_token: at });
    next = found.next_page_token;
    turn.querySelector("#previous").disabled = !before.length;
    turn.querySelector("#next").disabled = !next;
    if (!found.pairs?.length) return empty("No pairs here yet.");
    return el("ul", { class: "cards" }, found.pairs.map(card));
  }
  content.append(turn, place);
  go("");
}
