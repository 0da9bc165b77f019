// The episodes of a run: those that are going on, looked at every second, then the others.

import { call } from "./api.js";
import { button } from "./actions.js";
import { headlines } from "./curves.js";
import { el, foreign, say, svg } from "./dom.js";
import { badge, bare, by, empty } from "./words.js";

const LIVE = ["SAMPLING", "PAUSING", "PAUSED", "TRAINING", "PUBLISHING"];
const SHOWN = 20;
const live = (episode) => LIVE.includes(bare(episode.state));
const dropped = (episode) => Object.values(episode.dropped ?? {}).reduce((sum, n) => sum + n, 0);

// What became of the prompts: trained, paired, dropped, in flight, and what is to come.
function bar(episode) {
  const all = Math.max(1, episode.prompts), lost = dropped(episode);
  const parts = [
    ["trained", episode.trained], ["paired", Math.max(0, episode.paired - episode.trained)],
    ["dropped", lost], ["flight", episode.in_flight],
  ];
  let from = 0;
  const rects = parts.map(([name, count]) => {
    const x = (100 * from) / all;
    from += count;
    return svg("rect", { class: name, x, y: 0, width: (100 * count) / all, height: 8 });
  });
  return svg("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img",
    "aria-label": `${episode.paired} of ${episode.prompts} prompts paired` },
  svg("rect", { class: "rest", x: 0, y: 0, width: 100, height: 8 }), rects);
}

const count = (name, value, key) => el("span", { class: `count ${key}` }, el("b", {}, value), ` ${name}`);

function counts(episode) {
  const reasons = Object.entries(episode.dropped ?? {});
  return el("div", { class: "counts" },
    count(`of ${episode.prompts} dispatched`, episode.dispatched, "of-dispatched"),
    count("in flight", episode.in_flight, "of-flight"), count("paired", episode.paired, "of-paired"),
    count("dropped", dropped(episode), "of-dropped"),
    count("trained", episode.trained, "of-trained"),
    Number(episode.weight_version) ? count("version", episode.weight_version, "of-version") : null,
    reasons.length ? el("span", { class: "quiet" }, "dropped for ", reasons.map(([why, n], index) =>
      [index ? ", " : "", foreign(why.toLowerCase().replaceAll("_", " ")), ` ${n}`])) : null);
}

function buttons(run, episode, asked) {
  const body = { run, number: episode.number }, state = bare(episode.state);
  const of = (text, key) => ({ ...asked, key, label: `${text} episode ${episode.number}` });
  const pausable = ["SAMPLING", "PENDING"].includes(state);
  return el("div", { class: "buttons" },
    pausable ? button("Pause", "PauseEpisode", body, of("Pause", "hold")) : null,
    ["PAUSING", "PAUSED"].includes(state)
      ? button("Resume", "ResumeEpisode", body, of("Resume", "hold")) : null,
    [...LIVE.slice(0, 3), "PENDING"].includes(state) ? button("Cancel", "CancelEpisode", body,
      { ...of("Cancel", "cancel"), sure: `Episode ${episode.number} ends, and the run with it: `
        + "it cannot be taken back." }) : null);
}

// What GetEpisode alone tells: who sampled it, and why prompts of it failed.
function more({ versions = [], recent_errors: errors = [] }) {
  return [
    versions.length ? el("p", { class: "quiet" }, "sampled by ", versions.map((each) =>
      `version ${each.weight_version}: ${each.pairs} pairs`).join(", ")) : null,
    errors.length ? el("ul", { class: "error" }, errors.map((each) => el("li", {}, foreign(each))))
      : null,
  ];
}

function card(run, episode, asked, told = {}) {
  return el("li", { class: "card episode", "data-key": episode.number,
    "data-episode": episode.number },
  el("div", { class: "title" }, el("h3", {}, `Episode ${episode.number}`), badge(episode.state)),
  bar(episode), counts(episode), more(told),
  episode.error ? el("p", { class: "error" }, foreign(episode.error)) : null,
  episode.last_change ? el("p", {}, by(episode.last_change)) : null,
  buttons(run, episode, asked));
}

async function all(run, body = {}) {
  const found = [];
  let token = "";
  do {
    const page = await call("ListEpisodes", { run, ...body, page_token: token });
    found.push(...(page.episodes ?? []));
    token = page.next_page_token;
  } while (token);
  return found;
}

export function episodesView(page, content, run) {
  const said = el("div"), list = el("div"), curves = el("div");
  content.append(said, list, curves);
  const known = new Map(), told = new Map();
  let looks = 0, everything = false;
  const asked = { after: () => poll.now(), place: () => said };

  // Every look asks for those that go on; all are asked for when one of them began or ended.
  async function look() {
    const states = LIVE.map((name) => `EPISODE_STATE_${name}`);
    const going = looks++ % 15 ? await all(run, { states }) : null;
    const before = [...known.values()].filter(live).map((each) => each.number).join();
    if (!going || going.filter(live).map((each) => each.number).join() !== before) {
      update(await all(run));
    } else {
      update(going);
    }
    if (looks % 5 === 1) {
      for (const { number } of [...known.values()].filter(live).slice(0, SHOWN)) {
        told.set(number, (await call("GetEpisode", { run, number })).episode);
      }
    }
  }

  function update(episodes) {
    for (const each of episodes) {
      const was = known.get(each.number);
      if (was && was.state !== each.state) say(`episode ${each.number} is ${bare(each.state)}`);
      known.set(each.number, each);
    }
  }

  const poll = page.keep(list, async () => {
    await look();
    const going = [...known.values()].filter(live);
    const others = [...known.values()].filter((each) => !live(each));
    const next = others.filter((each) => bare(each.state) === "PENDING").slice(0, 1);
    const over = others.filter((each) => bare(each.state) !== "PENDING").reverse();
    const pending = others.length - over.length;
    const shown = everything ? over : over.slice(0, SHOWN);
    if (!known.size) return empty("No episodes.");
    return [
      el("ul", { class: "cards" }, going.map(
        (each) => card(run, each, asked, told.get(each.number)))),
      next.length ? el("div", { class: "card pending", "data-key": next[0].number },
        el("span", { class: "quiet" }, `${pending} to come, the next is episode ${next[0].number}`),
        buttons(run, next[0], asked)) : null,
      over.length ? el("details", { class: "over", open: !going.length },
        el("summary", {}, `${over.length} finished`),
        el("ul", { class: "cards" }, shown.map((each) => card(run, each, asked))),
        shown.length < over.length ? el("button", { type: "button", onclick: () => {
          everything = true;
          poll.now();
        } }, "Show all") : null) : null,
    ];
  }, 1000);
  headlines(page, curves, run);
}
