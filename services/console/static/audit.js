// Who changed what and why, the latest first; of one run or, without one, of all.

import { call } from "./api.js";
import { el, foreign } from "./dom.js";
import { clock, empty, table } from "./words.js";

const PAGE = 100;

function row(entry, of) {
  return el("tr", { "data-key": entry.id },
    el("td", { class: "time" }, clock(entry.time)),
    of ? null : el("td", {}, foreign(entry.run)),
    el("td", {}, entry.method, " ", foreign(entry.what)),
    el("td", {}, foreign(entry.actor)), el("td", {}, foreign(entry.reason)),
    el("td", { class: entry.outcome === "done" ? "" : "error" }, foreign(entry.outcome)));
}

export function auditView(page, content, run) {
  const place = el("div");
  let size = PAGE;
  if (!run) content.append(el("h1", {}, "Audit"));
  content.append(place);
  const poll = page.keep(place, async () => {
    const { entries = [], next_page_token: more } = await call("ListAudit",
      { run, page_size: size });
    if (!entries.length) return empty("Nothing was changed.");
    const names = ["Time (UTC)", ...(run ? [] : ["Run"]), "What", "Who", "Why", "Outcome"];
    return [
      table(names, entries.map((each) => row(each, run))),
      more && size < 500 ? el("button", { type: "button", onclick: () => {
        size = 500;
        poll.now();
      } }, "Show 500") : null,
    ];
  }, 5000);
}
