// Curves as small multiples: one a measure, drawn by calls; the value under the pointer is read out.

import { call } from "./api.js";
import { el, foreign, svg } from "./dom.js";
import { empty, number } from "./words.js";

const WIDTH = 320, HEIGHT = 110, LEFT = 4, RIGHT = 6, TOP = 6, BOTTOM = 6;
// What says most comes first; of the names in a group one is a headline.
const FIRST = [["reward_mean", "chosen_reward"], ["kl"], ["accuracy"], ["loss"],
  ["margin", "dpo_margin"], ["answer_tokens", "tokens_per_s"]];
const HEADLINES = 4;

const ORDER = FIRST.flat();

const rank = ({ name }) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);

const points = ({ x = [], y = [] }) => x.map((each, index) => [each, y[index]])
  .filter(([, value]) => Number.isFinite(value));

function figure(curve) {
  const drawn = points(curve);
  if (!drawn.length) return null;
  const xs = drawn.map(([x]) => x), ys = drawn.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const across = (x) => LEFT + ((WIDTH - LEFT - RIGHT) * (x - left)) / (right - left || 1);
  const down = (y) => (high === low ? HEIGHT / 2
    : TOP + ((HEIGHT - TOP - BOTTOM) * (high - y)) / (high - low));
  const last = drawn.at(-1);
  const line = drawn.map(([x, y]) => `${across(x).toFixed(1)},${down(y).toFixed(1)}`).join(" ");
  const read = (found, at) => {
    found.querySelector("output").textContent = at
      ? `${number(at[1])} at ${curve.axis || "step"} ${number(at[0])}` : number(last[1]);
    const dot = found.querySelector(".dot"), [x, y] = at ?? last;
    dot.setAttribute("cx", across(x));
    dot.setAttribute("cy", down(y));
  };
  return el("figure", { class: "curve", "data-key": `${curve.stage} ${curve.axis} ${curve.name}`,
    onpointermove: (event) => {
      const box = event.currentTarget.querySelector("svg").getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDTH;
      const near = drawn.reduce((best, each) => (
        Math.abs(across(each[0]) - x) < Math.abs(across(best[0]) - x) ? each : best));
      read(event.currentTarget, near);
    },
    onpointerleave: (event) => read(event.currentTarget, null) },
  el("figcaption", {}, el("span", {}, foreign(curve.name.replaceAll("_", " "))),
    el("output", {}, number(last[1]))),
  svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label":
    `${curve.name}: from ${number(ys[0])} to ${number(last[1])}, between ${number(low)} and ${number(high)}` },
  svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: down(high), y2: down(high) }),
  svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: down(low), y2: down(low) }),
  drawn.length > 1 ? svg("polyline", { class: "line", points: line }) : null,
  svg("circle", { class: "dot", cx: across(last[0]), cy: down(last[1]), r: 3.5 })),
  el("div", { class: "scale" }, el("span", {}, `${number(low)} to ${number(high)}`),
    el("span", {}, `${curve.axis || "step"} ${number(left)}–${number(right)}`)));
}

// By the stage that each is of and what it is counted by, the latest stage first.
function figures(curves) {
  const groups = new Map();
  for (const each of curves) {
    const of = each.axis === "episode" ? `${each.stage}, by episode` : each.stage;
    groups.set(of, [...(groups.get(of) ?? []), each]);
  }
  return [...groups].reverse().map(([of, its]) => el("section", { "data-key": of },
    el("h2", {}, foreign(of)), el("div", { class: "curves" },
      its.sort((one, other) => rank(one) - rank(other)).map(figure))));
}

export function curvesView(page, content, run) {
  page.keep(content, async () => {
    const { curves = [] } = await call("GetCurves", { run });
    if (!curves.length) return empty("Nothing measured yet.");
    return figures(curves);
  }, 5000);
}

// The few that say most, of the latest stage that has any.
export function headlines(page, place, run) {
  page.keep(place, async () => {
    let curves;
    try {
      ({ curves = [] } = await call("GetCurves", { run }));
    } catch (error) {
      if (!["FAILED_PRECONDITION", "UNIMPLEMENTED"].includes(error.code)) throw error;
      return el("p", { class: "quiet" }, "No curves: ", foreign(error.message));
    }
    const latest = curves.filter(({ stage }) => stage === curves.at(-1).stage);
    // Of one name the curve with more points.
    const longest = (names) => latest.filter(({ name }) => names.includes(name))
      .sort((one, other) => names.indexOf(one.name) - names.indexOf(other.name)
        || points(other).length - points(one).length)[0];
    const best = FIRST.map(longest).filter((each) => each && points(each).length)
      .slice(0, HEADLINES);
    return best.length ? el("section", {}, el("h2", {}, "Curves"),
      el("div", { class: "curves" }, best.map(figure))) : el("div");
  }, 5000);
}
