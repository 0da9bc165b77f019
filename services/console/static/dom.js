// Nodes are made by calls alone: no text, ours or a model's, is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "onkeydown", "onpointermove",
  "onpointerleave"];

function make(node, about, children) {
  for (const [name, value] of Object.entries(about)) {
    if (HANDLERS.includes(name)) node[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined
    && each !== false).map((each) => (each instanceof Node ? each : document.createTextNode(each))));
  return node;
}

export const el = (tag, about = {}, ...children) =>
  make(document.createElement(tag), about, children);
export const svg = (tag, about = {}, ...children) =>
  make(document.createElementNS(SVG, tag), about, children);

// Give `node` the content of `wanted`, and keep what is the same: focus, selection, scrolling and
// open <details> survive a look that changed a number.
export function morph(node, wanted) {
  const own = (name) => name === "open"; // whether <details> are open is the reader's
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && !own(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value && !own(name)) node.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (node[name] !== wanted[name]) node[name] = wanted[name];
  fill(node, [...wanted.childNodes]);
}

const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName
  && (one.nodeType !== 1 || one.getAttribute("data-key") === other.getAttribute("data-key"));

export function fill(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) {
    const key = child.getAttribute("data-key");
    if (key !== null) keyed.set(key, child);
  }
  let at = parent.firstChild;
  for (const next of wanted) {
    const key = next.nodeType === 1 ? next.getAttribute("data-key") : null;
    const kept = key !== null ? keyed.get(key) : at;
    keyed.delete(key);
    if (kept && alike(kept, next)) {
      if (kept === at) at = at.nextSibling;
      else parent.insertBefore(kept, at);
      if (kept.nodeType === 1) morph(kept, next);
      else if (kept.data !== next.data) kept.data = next.data;
    } else {
      parent.insertBefore(next, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

// What reorders, hides or breaks text: controls but tab and newline, marks and overrides of
// direction, invisible characters, tags, and halves of pairs. (Joiners stay: scripts need them.)
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]|\p{Surrogate}/gu;

// Text of a model, a data set or another person: shown as it is, what cannot be seen by its number.
export function foreign(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(HIDDEN)) {
    parts.push(text.slice(from, found.index));
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(el("span", { class: "hidden-character" }, `U+${code}`));
    from = found.index + found[0].length;
  }
  return el("bdi", { dir: "auto" }, parts, text.slice(from));
}

let before = "";
// For those who hear the page.
export function say(text) {
  if (text === before) return;
  before = text;
  document.getElementById("said").textContent = text;
}
