// The workers of a run: what each holds, whether they agree, how many there are to be.

import { call } from "./api.js";
import { button } from "./actions.js";
import { el, foreign } from "./dom.js";
import { badge, bare, empty, table } from "./words.js";

const KINDS = ["ROLLOUT", "PAIRING"];

// Whether those that sample hold the same weights.
function agreement(workers) {
  const versions = new Map();
  for (const { weight_version: version } of workers) {
    if (version !== undefined) versions.set(version, (versions.get(version) ?? 0) + 1);
  }
  if (!versions.size) return null;
  const held = [...versions].sort(([one], [other]) => other - one);
  return held.length === 1
    ? el("p", {}, el("span", { class: "badge good" }, "agreed"),
      ` all ${held[0][1]} that sample hold version ${held[0][0]}`)
    : el("p", {}, el("span", { class: "badge held" }, "between versions"),
      ` ${held.map(([version, count]) => `${count} at version ${version}`).join(", ")}`);
}

function row(run, worker, asked) {
  return el("tr", { "data-key": worker.name },
    el("td", {}, foreign(worker.name)), el("td", {}, bare(worker.kind).toLowerCase()),
    el("td", {}, badge(worker.state)), el("td", { class: "number" }, worker.weight_version ?? ""),
    el("td", { class: "number" }, worker.restarts),
    el("td", {}, button("Drain", "DrainWorker", { run, name: worker.name },
      { ...asked, label: `Drain ${worker.name}`, quiet: true })));
}

function scaling(run, workers, asked) {
  return KINDS.map((kind) => {
    const count = workers.filter((each) => bare(each.kind) === kind).length;
    if (!count) return null;
    const field = () => document.getElementById(`count-${kind}`);
    return el("div", { class: "buttons", "data-key": kind },
      el("label", {}, `${kind.toLowerCase()} workers`,
        el("input", { id: `count-${kind}`, type: "number", min: "1", value: count })),
      button("Scale", "ScaleWorkers", () => ({ run, kind: `WORKER_KIND_${kind}`,
        count: Math.trunc(Number(field().value)) || 0 }),
      { ...asked, label: `Scale ${kind.toLowerCase()} workers` }));
  });
}

function staleness(run, found, asked) {
  if (found?.max_staleness === undefined) return null;
  return el("div", { class: "buttons" },
    el("label", {}, "versions a sample may be behind",
      el("input", { id: "staleness", type: "number", min: "0", value: found.max_staleness })),
    button("Set", "SetStaleness", () => ({ run, max_staleness:
      Math.trunc(Number(document.getElementById("staleness").value)) || 0 }),
    { ...asked, label: "Set staleness" }));
}

export function workersView(page, content, run, changed) {
  const said = el("div"), place = el("div");
  content.append(said, place);
  const asked = { place: () => said, after: () => {
    poll.now();
    changed();
  } };
  const poll = page.keep(place, async () => {
    const [{ workers = [] }, { run: found }] = await Promise.all(
      [call("ListWorkers", { run }), call("GetRun", { run })]);
    return [
      agreement(workers),
      workers.length ? table(["Worker", "Kind", "State", "Version", "Restarts", ""],
        workers.map((each) => row(run, each, asked))) : empty("No workers."),
      el("div", { class: "controls" }, scaling(run, workers, asked), staleness(run, found, asked)),
    ];
  }, 2000);
}
