// What is read as a whole: the proof of the ledger, the configuration.

import { call } from "./api.js";
import { el, foreign } from "./dom.js";

const PROOF_MS = 30000; // each look reads the whole ledger
const CONFIG_MS = 60000;

export function proofView(page, content, run) {
  page.keep(content, async () => {
    const { clean, lines = [] } = await call("GetLedgerProof", { run });
    return [
      el("p", {}, el("span", { class: `badge ${clean ? "good" : "bad"}` },
        clean ? "clean" : "not clean"),
      clean ? " every prompt was trained or dropped, and none twice" : " see below"),
      el("pre", { class: "document", tabindex: "0" }, foreign(lines.join("\n"))),
    ];
  }, PROOF_MS);
}

export function configView(page, content, run) {
  page.keep(content, async () => {
    const { yaml } = await call("GetConfig", { run });
    return el("pre", { class: "document", tabindex: "0", "aria-label": "configuration" },
      foreign(yaml));
  }, CONFIG_MS);
}
