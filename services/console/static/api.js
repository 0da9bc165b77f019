// Calls of the admin API through the bridge, with the token of this tab.

const TOKEN = "pairloop.token";
export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  drop: () => sessionStorage.removeItem(TOKEN),
};

// `code` is gRPC's, or UNREACHABLE where nobody answered.
export class Refused extends Error {
  constructor(code, message, violations = []) {
    super(message);
    Object.assign(this, { code, violations });
  }
}

let ahead = 0; // ms that the server's clock is ahead of ours
export const now = () => Date.now() + ahead;

export async function call(method, body = {}) {
  const headers = { "Content-Type": "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let answer;
  try {
    answer = await fetch(`/api/v1/${method}`, {
      method: "POST", headers, body: JSON.stringify(body), credentials: "omit",
      signal: AbortSignal.timeout(65000),
    });
  } catch {
    throw new Refused("UNREACHABLE", "the server does not answer");
  }
  const date = Date.parse(answer.headers.get("Date") ?? "");
  if (date) ahead = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  let said;
  try {
    said = await answer.json();
  } catch {
    throw new Refused("UNREACHABLE", `the server answered ${answer.status} and no JSON`);
  }
  if (!answer.ok) throw new Refused(said.code, said.message, said.violations);
  return said;
}

const unanswered = new Map();

// A change. Asked for again because no answer came, it has the same id and is made once.
export async function change(method, body) {
  const key = JSON.stringify([method, body]);
  const id = unanswered.get(key) ?? fresh();
  unanswered.set(key, id);
  try {
    const answer = await call(method, { ...body, request_id: id });
    unanswered.delete(key);
    return answer;
  } catch (error) {
    if (!["UNREACHABLE", "UNAVAILABLE", "DEADLINE_EXCEEDED"].includes(error.code)) {
      unanswered.delete(key);
    }
    throw error;
  }
}

// crypto.randomUUID is for pages by TLS or of this machine alone.
const fresh = () => [...crypto.getRandomValues(new Uint8Array(12))]
  .map((byte) => byte.toString(16).padStart(2, "0")).join("");
