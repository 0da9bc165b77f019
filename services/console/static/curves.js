// Curves as small multiples: one a measure, drawn by calls; the value under the pointer is read out.

import { call } from "./api.js";
import { el, foreign, svg } from "./dom.js";
import { empty, number } from "./words.js";

const WIDTH = 320, HEIGHT = 110, LEFT = 4, RIGHT = 6, TOP = 6, BOTTOM = 6;
const FIRST = [/reward/, /win|accuracy/, /kl/, /loss/, /margin/, /length|tokens/];
const HEADLINES = 4;

const rank = ({ name }) => {
  const at = FIRST.findIndex((each) => each.test(name));
  return at < 0 ? FIRST.length : at;
};

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
  return el("figure", { class: "curve", "data-key": `${curve.stage} ${curve.name}`,
    onpointermove: (event) => {
      const box = event.currentTarget.querySelector("svg").getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDTH;
      const near = drawn.reduce((best, each) => (
        Math.abs(across(each[0]) - x) < Math.abs(across(best[0]) - x) ? each : best));
      read(event.currentTarget, near);
    },
    onpointerleave: (event) => read(event.currentTarget, null) },
  el("figcaption", {}, el("span", {}, curve.name.replaceAll("_", " ")),
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

// By the stage that each is of.
function figures(curves) {
  const stages = new Map();
  for (const each of curves) stages.set(each.stage, [...(stages.get(each.stage) ?? []), each]);
  return [...stages].map(([stage, its]) => el("section", { "data-key": stage },
    el("h2", {}, stage), el("div", { class: "curves" }, its.map(figure))));
}

export function curvesView(page, content, run) {
  page.keep(content, async () => {
    const { curves = [] } = await call("GetCurves", { run });
    if (!curves.length) return empty("Nothing measured yet.");
    return figures([...curves].sort((one, other) => rank(one) - rank(other)));
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
    const latest = curves.at(-1)?.stage;
    const best = [...new Map(curves.filter(({ stage }) => stage === latest)
      .sort((one, other) => rank(one) - rank(other))
      .filter((each) => rank(each) < FIRST.length && points(each).length)
      .map((each) => [`${rank(each)}`, each]).reverse()).values()].reverse().slice(0, HEADLINES);
    return best.length ? el("section", {}, el("h2", {}, "Curves"),
      el("div", { class: "curves" }, best.map(figure))) : el("div");
  }, 5000);
}
