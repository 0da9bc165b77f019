// Every run that the server knows, the latest first.

import { call } from "./api.js";
import { el, foreign } from "./dom.js";
import { ago, badge, empty } from "./words.js";

export const runLink = (id, tab = "") => `#/run/${encodeURIComponent(id)}${tab && `/${tab}`}`;

const row = (run) => el("li", { "data-key": run.id, class: "card run" },
  el("a", { href: runLink(run.id), class: "name" }, foreign(run.name || run.id)),
  badge(run.state),
  el("span", {}, run.job, run.stage && run.stage !== run.job ? ` · ${run.stage}` : ""),
  el("span", { class: "quiet" }, foreign(`${run.user}@${run.host}`), ` · heard ${ago(run.heard)}`),
  run.error ? el("span", { class: "error" }, foreign(run.error)) : null);

export function runsView(page, main) {
  const place = el("div");
  main.append(el("h1", {}, "Runs"), place);
  page.keep(place, async () => {
    const { runs = [] } = await call("ListRuns");
    if (!runs.length) return empty("No run yet: one is listed once it has begun.");
    return el("ul", { class: "cards" }, runs.map(row));
  }, 2000);
}
