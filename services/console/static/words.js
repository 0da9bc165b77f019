// Values as they are shown.

import { now } from "./api.js";
import { el, foreign } from "./dom.js";

export const bare = (value) => (value ?? "").replace(/^[A-Z]+_(STATE|KIND)_/, "");

const LOOKS = {
  RUNNING: "good", COMPLETED: "done", FAILED: "bad", LOST: "bad", STOPPED: "idle", WAITING: "held",
  PAUSING: "held", PAUSED: "held", SAMPLING: "good", TRAINING: "good", PUBLISHING: "good",
  CANCELLED: "bad", PENDING: "idle", STARTING: "held", WORKING: "good", DRAINING: "held",
};

export function badge(value) {
  const name = bare(value);
  return el("span", { class: `badge ${LOOKS[name] ?? "idle"}` }, name);
}

export function ago(time) {
  const then = Date.parse(time ?? "");
  if (!then) return "never";
  const seconds = Math.max(0, (now() - then) / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(then).toISOString().slice(0, 10);
}

export const clock = (time) => (Date.parse(time ?? "")
  ? new Date(time).toISOString().replace("T", " ").slice(0, 19) : "");

export function number(value) {
  if (typeof value !== "number") return String(value);
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6)) {
    return String(Number(value.toPrecision(4)));
  }
  return value.toExponential(2);
}

export function by(change) {
  if (!change) return null;
  return el("span", { class: "quiet" }, ago(change.time), " by ", foreign(change.actor), ": ",
    foreign(change.reason));
}

// Of a look, that there is nothing yet to look at is no alarm.
export function refusal(error, look = false) {
  if (look && error.code === "FAILED_PRECONDITION") return empty(error.message);
  return el("div", { class: "refusal", role: "alert" },
    el("b", {}, error.code ?? "ERROR"), " ", foreign(error.message),
    (error.violations ?? []).length > 1
      && el("ul", {}, error.violations.map((each) =>
        el("li", {}, el("code", {}, each.field), " ", foreign(each.description)))));
}

export const empty = (text) => el("p", { class: "empty" }, foreign(text));

// On a narrow page each row is a block, and each cell says its column's name.
export function table(names, rows) {
  for (const row of rows) {
    [...row.cells].forEach((cell, index) => cell.setAttribute("data-column", names[index]));
  }
  return el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "table" },
    el("table", {},
      el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows)));
}
