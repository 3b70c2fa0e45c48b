// The cell's service, as the page sees it: requests with the token, the documents they are answered with, events.

/** Longest wait for an answer. */
const ANSWER_MS = 30_000;
/** A stream of events that says nothing for so long is dead: the service sends a comment every 15 seconds. */
const SILENCE_MS = 40_000;
/** How long the service is asked to hold an answer when events do not come through, in seconds. */
const WAIT_SECS = 10;
/** Pauses after a request that failed; the last one is repeated. */
const PAUSES_MS = [1_000, 2_000, 5_000, 10_000];
/** Longest event that is read. */
const EVENT_CHARACTERS = 4 << 20;

const DAV = "DAV:";
const TOKEN = "cell-export token";

/** URL of the cell: the page is `{cell}__export/ui`. */
export const CELL = new URL("../", document.baseURI);
/** A cell is a path of its unit, or a host below it. */
const hasPath = CELL.pathname !== "/";
export const CELL_NAME = decodeURIComponent(hasPath ? CELL.pathname.split("/")[1] : CELL.hostname.split(".")[0]);
/** URL of the unit. */
export const UNIT = new URL(hasPath ? CELL.origin : `${CELL.protocol}//${CELL.host.split(".").slice(1).join(".")}`);

/** What the service, or the way to it, says in place of an answer. */
export class Refusal extends Error {
  constructor(status, code, words) {
    super(words);
    this.status = status;
    this.code = code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  keep: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** Called when the service does not take the token any more. */
let onRefusedToken = () => {};
export const whenTokenIsRefused = (listener) => { onRefusedToken = listener; };

const authorization = () => ({ Authorization: `Bearer ${token.get() ?? ""}` });

/** Sends a request. Throws a `Refusal` unless it succeeds. */
async function request(method, path, { headers = {}, body, signal, answerMs = ANSWER_MS } = {}) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new DOMException("", "TimeoutError")), answerMs);
  const both = AbortSignal.any([late.signal, ...(signal ? [signal] : [])]);
  let response;
  try {
    response = await fetch(new URL(path, CELL), {
      method, body, signal: both, headers: { ...authorization(), ...headers },
      credentials: "omit", cache: "no-store", redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(0, error?.name === "TimeoutError" ? "late" : "unreachable", "");
  } finally {
    clearTimeout(timer);
  }
  if (response.ok) return response;
  const refusal = refusalOf(response.status, await response.text().catch(() => ""));
  if (refusal.status === 401 || refusal.status === 403) onRefusedToken(refusal);
  throw refusal;
}

function refusalOf(status, text) {
  const { code, words } = errorDocument(text);
  return new Refusal(status, code, words);
}

/** Reads `{"code", "message": {"value"}}`, in which form every error is told. */
export function errorDocument(text) {
  try {
    const { code, message } = typeof text === "string" ? JSON.parse(text) : text;
    return { code: String(code ?? ""), words: String(message?.value ?? "") };
  } catch {
    return { code: "", words: "" };
  }
}

/** Lists the snapshot area, newest first. */
export async function listSnapshots() {
  const response = await request("PROPFIND", "__snapshot", { headers: { Depth: "1" } });
  const document = new DOMParser().parseFromString(await response.text(), "application/xml");
  const files = [];
  for (const answer of document.getElementsByTagNameNS(DAV, "response")) {
    const text = (name) => answer.getElementsByTagNameNS(DAV, name)[0]?.textContent ?? "";
    if (answer.getElementsByTagNameNS(DAV, "collection").length > 0) continue;
    const file = decodeURIComponent(text("href").split("/").pop());
    files.push({ file, size: Number(text("getcontentlength")), modified: new Date(text("getlastmodified")) });
  }
  return files.sort((a, b) => b.modified - a.modified || a.file.localeCompare(b.file));
}

export const snapshotUrl = (file) => new URL(`__snapshot/${encodeURIComponent(file)}`, CELL);

/** The SHA-256 of a snapshot as the service tells it, hexadecimal; nothing when it tells none. */
export async function digest(file) {
  const response = await request("HEAD", snapshotUrl(file));
  const [, base64] = /sha-256=:([A-Za-z0-9+/=]+):/.exec(response.headers.get("Repr-Digest") ?? "") ?? [];
  return base64 && Array.from(atob(base64), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
}

/** Reads a small JSON document of the area. */
export const readErrorFile = async (file) => errorDocument(await (await request("GET", snapshotUrl(file))).text());

/** Asks for a snapshot; its bytes come as a stream. */
export const download = (file, signal) => request("GET", snapshotUrl(file), { signal });

export const removeSnapshot = (file) => request("DELETE", snapshotUrl(file));

/** Sends a file into the area, and tells how much of it is on its way. Only XMLHttpRequest knows that. */
export function upload(name, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("PUT", snapshotUrl(name));
    sending.setRequestHeader("Authorization", authorization().Authorization);
    sending.setRequestHeader("Content-Type", "application/zip");
    sending.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    sending.onload = () => {
      if (sending.status < 300) return resolve();
      const refusal = refusalOf(sending.status, sending.responseText);
      if (refusal.status === 401 || refusal.status === 403) onRefusedToken(refusal);
      reject(refusal);
    };
    sending.onerror = () => reject(new Refusal(0, "unreachable", ""));
    sending.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}

const RESOURCES = { export: "__export", import: "__import", "dry-run": "__import/dry-run" };

/** Asks for a job; returns its path. */
export async function order(kind, name) {
  // The key makes it safe to send this twice: proxies and browsers do when a connection breaks.
  const headers = { "Content-Type": "application/json", "Idempotency-Key": `"${randomKey()}"` };
  const body = name ? JSON.stringify({ Name: name }) : "{}";
  const response = await request("POST", RESOURCES[kind], { headers, body });
  const [, url] = /<([^>]+)>\s*;\s*rel="?monitor"?/.exec(response.headers.get("Link") ?? "") ?? [];
  return jobPath(kind, url?.split("/").pop());
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

const jobPath = (kind, id) => `${kind === "export" ? "__export" : "__import"}/jobs/${encodeURIComponent(id)}`;

const isOver = (job) => !["queued", "running"].includes(job.state);

/** The path of the job that the cell is at, if there is one. */
export async function activeJob() {
  const lists = ["__export/jobs?limit=1", "__import/jobs?limit=1"].map(async (path) => (await request("GET", path)).json());
  const jobs = (await Promise.all(lists)).flatMap((list) => list.jobs);
  const active = jobs.find((job) => !isOver(job));
  return active && jobPath(active.kind, active.id);
}

export const cancelJob = (path) => request("DELETE", path);

/** Follows a job to its end: yields it whenever it changed, and nothing while the service cannot be reached. */
export async function* follow(path, signal) {
  let failures = 0;
  const seen = { id: null };
  while (!signal.aborted) {
    try {
      for await (const job of events(path, seen, signal)) {
        failures = 0;
        yield job;
        if (isOver(job)) return;
      }
      // The stream was closed before the end, or there was nothing left to tell.
      const job = await (await request("GET", path, { signal })).json();
      yield job;
      if (isOver(job)) return;
    } catch (error) {
      if (signal.aborted) return;
      // Without rights, or without the job, there is nothing to follow.
      if ([401, 403, 404].includes(error?.status)) throw error;
      const job = await waited(path, signal);
      yield job;
      if (job && isOver(job)) return;
    }
    const pause = PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)];
    failures += 1;
    await rest(pause, signal);
  }
}

/** One look by a request that is held, for ways on which events do not come through; nothing when that fails too. */
async function waited(path, signal) {
  try {
    const headers = { Prefer: `wait=${WAIT_SECS}` };
    const response = await request("GET", path, { headers, signal, answerMs: ANSWER_MS + WAIT_SECS * 1000 });
    return await response.json();
  } catch (error) {
    if ([401, 403, 404].includes(error?.status)) throw error;
    return null;
  }
}

function rest(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

/** Reads the events of a job (HTML, section 9.2.6). EventSource would do, but sends no Authorization. */
async function* events(path, seen, signal) {
  const headers = { Accept: "text/event-stream", ...(seen.id === null ? {} : { "Last-Event-ID": seen.id }) };
  const response = await request("GET", `${path}/events`, { headers, signal });
  if (response.status === 204 || !response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (true) {
      const { value, done } = await withinSilence(reader.read());
      if (done) return;
      text = (text + value).replaceAll("\r\n", "\n");
      const pieces = text.split("\n\n");
      text = pieces.pop();
      if (text.length > EVENT_CHARACTERS) return;
      for (const piece of pieces) {
        const fields = new Map(piece.split("\n").map((line) => line.split(/: ?(.*)/s).slice(0, 2)));
        if (fields.has("id")) seen.id = fields.get("id");
        if (fields.has("data")) yield JSON.parse(fields.get("data"));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function withinSilence(reading) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Refusal(0, "late", "")), SILENCE_MS);
  });
  return Promise.race([reading, silence]).finally(() => clearTimeout(timer));
}
