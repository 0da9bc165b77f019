// Which view the address names, and what all of them share: the link's state and the sign-in.
//   #/                    runs
//   #/audit               who changed what, in all runs
//   #/run/<id>/<tab>      one run

import { token } from "./api.js";
import { el, fill, say } from "./dom.js";
import { Poll } from "./poll.js";
import { auditView } from "./audit.js";
import { runView } from "./run.js";
import { runsView } from "./runs.js";
import { refusal } from "./words.js";

const main = document.getElementById("main");
const link = document.getElementById("link");
let polls = [];

function linked(text) {
  if (link.textContent !== text) link.textContent = text;
  link.className = text ? "link lost" : "link";
}

// What views are given: a part of the page that is kept as `look` says, by what it returns.
const page = {
  // `every` in ms. What is refused is shown above what was there before.
  keep(place, look, every) {
    const refused = el("div"), content = el("div");
    place.replaceChildren(refused, content);
    const poll = new Poll(async () => {
      const found = await look();
      linked("");
      refused.replaceChildren();
      fill(content, [found].flat(Infinity).filter((each) => each instanceof Node));
    }, every, (error) => {
      if (error.code === "UNAUTHENTICATED") signIn(error);
      else if (["UNREACHABLE", "UNAVAILABLE"].includes(error.code)) {
        linked(`${error.message}; trying again`);
      } else {
        linked("");
        fill(refused, [refusal(error, true)]);
      }
      if (!error.code) console.error(error); // ours
    });
    polls.push(poll);
    return poll;
  },
  drop(poll) {
    poll.end();
    polls = polls.filter((each) => each !== poll);
  },
};

function clear() {
  polls.forEach((poll) => poll.end());
  polls = [];
  main.replaceChildren();
}

function signIn(error) {
  clear();
  const was = token.get();
  token.drop();
  const field = el("input", { id: "token", type: "password", autocomplete: "off",
    pattern: "\\s*[!-~]+\\s*", spellcheck: "false", required: true, "aria-describedby": "kept" });
  main.append(el("form", { class: "sign-in", onsubmit: (event) => {
    event.preventDefault();
    token.set(field.value.trim());
    show();
  } },
  el("h1", {}, "Sign in"),
  was ? refusal(error) : null,
  el("label", { for: "token" }, "Token"), field,
  el("p", { class: "quiet", id: "kept" }, "One of those the server was given, such as a line of its "
    + "file of tokens. This tab keeps it until it is closed, and no longer."),
  el("button", { type: "submit" }, "Sign in")));
  field.focus();
  say("a token is needed");
}

function show() {
  clear();
  document.getElementById("signout").hidden = !token.get();
  const [kind, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  document.title = kind === "run" ? `${rest[0]} · Pairloop` : "Pairloop";
  for (const each of document.querySelectorAll("header nav a")) {
    const here = each.getAttribute("href") === (kind === "audit" ? "#/audit" : "#/");
    each.toggleAttribute("aria-current", here && kind !== "run");
  }
  if (kind === "run") runView(page, main, ...rest);
  else if (kind === "audit") auditView(page, main, "");
  else runsView(page, main);
}

document.getElementById("signout").onclick = () => {
  token.drop();
  show();
};
window.addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  main.focus();
};
show();
