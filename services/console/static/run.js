// One run: what it is and its own buttons, and below the tab that is open.

import { call } from "./api.js";
import { button, reasonField } from "./actions.js";
import { auditView } from "./audit.js";
import { curvesView } from "./curves.js";
import { el, foreign, say } from "./dom.js";
import { configView, proofView } from "./documents.js";
import { episodesView } from "./episodes.js";
import { lettersView } from "./letters.js";
import { pairsView } from "./pairs.js";
import { runLink } from "./runs.js";
import { ago, badge, bare, by } from "./words.js";
import { workersView } from "./workers.js";

const TABS = {
  episodes: ["Episodes", episodesView],
  curves: ["Curves", curvesView],
  pairs: ["Pairs", pairsView],
  workers: ["Workers", workersView],
  letters: ["Dead letters", lettersView],
  ledger: ["Ledger", proofView],
  config: ["Configuration", configView],
  audit: ["Audit", auditView],
};

const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value));

function about(run) {
  return el("dl", { class: "facts" },
    fact("Job", run.job || "—", run.stage && run.stage !== run.job ? `, in ${run.stage}` : ""),
    fact("Host", foreign(run.host || "—"), run.pid ? `, process ${run.pid}` : ""),
    run.heard ? fact("Heard", ago(run.heard)) : null,
    run.started ? fact("Begun", ago(run.started)) : null,
    fact("Folder", foreign(run.folder || "—")));
}

export function runView(page, main, id, tab = "episodes") {
  const said = el("div"), head = el("div"), content = el("div", { class: "tab" });
  let state = "";
  const [, view] = TABS[tab] ?? TABS.episodes;
  const asked = { key: "hold", after: () => poll.now(), place: () => said };
  main.append(head, said,
    el("nav", { class: "tabs", "aria-label": "This run" }, Object.entries(TABS).map(
      ([name, [title]]) => el("a", { href: runLink(id, name),
        "aria-current": name === tab ? "page" : null }, title))),
    content);
  const poll = page.keep(head, async () => {
    const { run } = await call("GetRun", { run: id });
    if (state && state !== run.state) say(`run ${run.name} is ${bare(run.state)}`);
    state = run.state;
    const held = ["PAUSING", "PAUSED"].includes(bare(state));
    const body = { run: id };
    return [
      el("div", { class: "title" }, el("h1", {}, foreign(run.name || id)), badge(state)),
      about(run),
      run.error ? el("p", { class: "error" }, foreign(run.error)) : null,
      run.last_change ? el("p", {}, by(run.last_change)) : null,
      el("div", { class: "buttons" }, reasonField(),
        held ? button("Resume run", "ResumeRun", body, asked)
          : button("Pause run", "PauseRun", body, asked),
        button("Stop run", "StopRun", body, { ...asked, key: "stop",
          sure: "The run keeps what it has and ends. The same command goes on where it stood." })),
    ];
  }, 1000);
  view(page, content, id, () => poll.now());
}
