// The job under way: its bar, its figures, its end, and what a dry run found.

import { CELL_NAME, UNIT, cancelJob, errorDocument, follow } from "./service.js";
import { bytes, duration, number, percent, plainWords, text } from "./texts.js";

/** Pause between two announcements of progress to screen readers. */
const SPOKEN_MS = 5_000;
/** Faults of a snapshot that are shown. */
const FAULTS_SHOWN = 20;

const byId = (id) => document.getElementById(id);

/** Makes an element with a text. */
export function element(name, words, className) {
  const made = document.createElement(name);
  if (words !== undefined) made.textContent = words;
  if (className) made.className = className;
  return made;
}

/** Shows an error: what it means, its code, and what the service says. */
export function explained({ status, code, words }) {
  const shown = element("div", undefined, "explained");
  shown.append(element("p", plainWords({ status, code })));
  if (/^PR\d{3}-/.test(code)) {
    const link = element("a", text("fault.code", { code }));
    link.href = new URL(`openapi.html#${code}`, UNIT);
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    const said = element("p", undefined, "said");
    said.append(link);
    if (words) said.append(element("span", text("fault.said", { words })));
    shown.append(said);
  }
  return shown;
}

/** The status that stands in a code, for errors that were told in a document. */
export const withStatus = ({ code, words }) => ({ code, words, status: Number(/^PR(\d{3})-/.exec(code)?.[1] ?? 500) });

let following = null;
let shown = null;
let lost = false;
let spokenAt = 0;
let spokenLast = "";

/** Says something to screen readers. */
export function speak(words) {
  byId("spoken").textContent = words;
}

/** Follows a job to its end and shows it; `onEnd` hears of the end. */
export async function watch(path, onEnd) {
  following?.abort();
  const own = new AbortController();
  following = own;
  shown = null;
  lost = false;
  spokenAt = 0;
  spokenLast = "";
  byId("job-cancel").onclick = () => cancel(path);
  try {
    for await (const job of follow(path, own.signal)) {
      if (own.signal.aborted) return;
      lost = job === null;
      shown = job ?? shown;
      render();
      announce();
    }
  } catch (error) {
    if (own.signal.aborted) return;
    hide();
    throw error;
  }
  if (own.signal.aborted || !shown) return;
  speak(outcome(shown));
  onEnd(shown);
}

async function cancel(path) {
  byId("job-cancel").disabled = true;
  byId("job-cancel").textContent = text("job.cancelling");
  try {
    await cancelJob(path);
  } catch (error) {
    // It ended meanwhile: that will be heard of.
    if (error.status !== 409) byId("job-outcome").replaceChildren(explained({ ...error, words: error.message }));
    byId("job-cancel").disabled = false;
  }
}

/** Puts the job away. */
export function hide() {
  following?.abort();
  following = null;
  shown = null;
  byId("job").hidden = true;
}

const isOver = (job) => !["queued", "running"].includes(job.state);

/** Shows the job as it was last heard of; again when the language changed. */
export function render() {
  const job = shown;
  byId("job").hidden = !job;
  if (!job) return;
  const over = isOver(job);
  const succeeded = job.state === "succeeded";
  byId("job-title").textContent = text(`job.${job.kind}`, { name: job.name });
  byId("job-state").textContent = text(`state.${job.state}`);
  byId("job-state").className = `state ${job.state}`;
  byId("job-moving").hidden = over && !(succeeded && job.kind !== "dry-run");
  byId("job-bar").value = job.percent;
  byId("job-percent").textContent = percent(job.percent);
  byId("job-facts").replaceChildren(...facts(job).flatMap(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", text(`fact.${name}`)), element("dd", value));
    return [pair];
  }));
  const cancelling = job.cancel_requested && !over;
  byId("job-cancel").hidden = over;
  byId("job-cancel").disabled = cancelling;
  byId("job-cancel").textContent = text(cancelling ? "job.cancelling" : "job.cancel");
  byId("job-close").hidden = !over;
  byId("job-import").hidden = !(job.kind === "dry-run" && succeeded && job.result?.importable);
  byId("job-outcome").replaceChildren(...(over ? ending(job) : lost ? [element("p", text("job.lost"), "hint")] : []));
}

function facts(job) {
  const of = ({ done, total }, write, key) =>
    total === null || total === undefined || total === done ? write(done) : text(key, { done: write(done), total: write(total) });
  const all = [];
  if (job.queue_position) all.push(["queue", number(job.queue_position)]);
  if (job.state === "queued") return all;
  all.push(["documents", of(job.documents, number, "fact.of")], ["files", of(job.files, number, "fact.of")]);
  const estimated = job.kind === "export" && !isOver(job);
  all.push(["bytes", of(job.bytes, bytes, estimated ? "fact.about" : "fact.of")]);
  if (isOver(job)) return all;
  if (job.bytes_per_second) all.push(["rate", text("rate", { bytes: bytes(job.bytes_per_second) })]);
  const left = secondsLeft(job);
  if (left !== null) all.push(["left", duration(left)]);
  if (job.attempt > 1) all.push(["attempt", number(job.attempt)]);
  return all;
}

/** By the service's own clock: this machine's may be off. */
function secondsLeft(job) {
  if (!job.estimated_end || !job.heartbeat_at) return null;
  return Math.max(0, (new Date(job.estimated_end) - new Date(job.heartbeat_at)) / 1000);
}

function announce() {
  if (isOver(shown) || Date.now() - spokenAt < SPOKEN_MS) return;
  const left = secondsLeft(shown);
  const values = { percent: percent(shown.percent), left: left === null ? "" : duration(left) };
  const words = shown.state === "queued"
    ? text("spoken.queued", { place: number(shown.queue_position ?? 1) })
    : text(left === null ? "spoken.percent" : "spoken.progress", values);
  const whole = `${text(`job.${shown.kind}`, { name: shown.name })}: ${words}`;
  if (whole === spokenLast) return;
  spokenAt = Date.now();
  spokenLast = whole;
  speak(whole);
}

/** How a job ended, in one sentence. */
function outcome(job) {
  if (job.state !== "succeeded") return text(`ended.${job.state}`);
  return text(`done.${job.kind}`, { name: job.name, cell: CELL_NAME, size: bytes(job.size ?? 0) });
}

function ending(job) {
  const parts = [element("p", outcome(job), job.state === "succeeded" ? "outcome good" : "outcome")];
  if (job.state === "failed" && job.error) parts.push(explained(withStatus(errorDocument(job.error))));
  if (job.kind === "dry-run" && job.result) parts.push(...found(job.result));
  return parts;
}

/** What a dry run found. */
function found(result) {
  const parts = [element("p", text(result.importable ? "found.good" : "found.bad"), `verdict ${result.importable ? "good" : "bad"}`)];
  if (result.changes) parts.push(changes(result.changes));
  const remarks = [];
  if (result.ids) remarks.push(text(result.ids === "kept" ? "found.kept" : "found.new"));
  if (result.repaired_links) remarks.push(text("found.repaired", { count: number(result.repaired_links) }));
  if (result.left_out) remarks.push(text("found.left", { count: number(result.left_out) }));
  parts.push(...remarks.map((words) => element("p", words, "hint")));
  const { count = 0, listed = [] } = result.faults ?? {};
  if (count > 0) {
    parts.push(element("h3", text("found.faults", { count: number(count) })));
    const list = element("ul", undefined, "faults");
    const few = listed.slice(0, FAULTS_SHOWN);
    list.append(...few.map((fault) => element("li", fault)));
    if (count > few.length) list.append(element("li", text("found.moreFaults", { count: number(count - few.length) })));
    parts.push(list);
  }
  return parts;
}

const COLUMNS = ["added", "replaced", "removed", "unchanged"];

function changes(all) {
  const total = Object.values(all.documents ?? {}).reduce(
    (sum, of) => Object.fromEntries(COLUMNS.map((column) => [column, (sum[column] ?? 0) + of[column]])), {});
  const table = element("table");
  table.append(element("caption", text("found.changes")));
  const head = element("tr");
  head.append(...["kind", ...COLUMNS].map((name) => {
    const cell = element("th", text(`found.${name}`));
    cell.scope = "col";
    return cell;
  }));
  const rows = [["documents", total], ["files", all.files ?? {}], ["collections", all.collections ?? {}]];
  const body = element("tbody");
  for (const [name, of] of rows) {
    const row = element("tr");
    const title = element("th", text(`found.${name}`));
    title.scope = "row";
    row.append(title, ...COLUMNS.map((column) => element("td", number(of[column] ?? 0), of[column] ? column : "none")));
    body.append(row);
  }
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  return table;
}
