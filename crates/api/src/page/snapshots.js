// The list of snapshots: what is there, and what can be done with each.

import {
  CELL, Refusal, digest, download, listSnapshots, readErrorFile, removeSnapshot, snapshotUrl,
} from "./service.js";
import { element, explained, speak, withStatus } from "./progress.js";
import { bytes, date, percent, text } from "./texts.js";

/** Files that are shown at once. */
const PAGE = 25;
/** Digests and error files that are asked for at the same time. */
const LOOKS = 4;
/** Up to this size a browser holds a download in memory, where it cannot write to a file as the bytes come. */
const IN_MEMORY_BYTES = 2 ** 30;
/** Characters of a digest that are shown in the list. */
const DIGEST_START = 12;
/** Pause between two changes of a download's bar. */
const SHOWN_MS = 200;

const byId = (id) => document.getElementById(id);

let files = [];
let visible = PAGE;
/** What was found out about files: digests and errors, by name, time and size. */
const known = new Map();
/** Downloads under way, by file. */
const downloads = new Map();
let actions = {};

/** What the list needs of the page: `ask` for a confirmation, `refuse` to show an error, `examine` for a dry run. */
export const useActions = (given) => { actions = given; };

/** Reads the list again and shows it. */
export async function refresh() {
  files = await listSnapshots();
  const names = new Set(files.map(key));
  for (const name of known.keys()) if (!names.has(name)) known.delete(name);
  render();
  await look();
}

/** Tells whether there is a file of this name. */
export const hasFile = (name) => files.some(({ file }) => file === name);

/** Forgets what was shown. */
export function clear() {
  for (const { stop } of downloads.values()) stop.abort();
  downloads.clear();
  known.clear();
  files = [];
  visible = PAGE;
  render();
}

/** Shows more of the list. */
export async function more() {
  const before = visible;
  visible += PAGE;
  render();
  byId("snapshots").children[before]?.querySelector("button, summary")?.focus();
  await look();
}

const key = ({ file, size, modified }) => `${file} ${size} ${modified.getTime()}`;
const isError = ({ file }) => file.endsWith(".error");

/** Asks for the digests and errors of what is shown, a few at a time. */
async function look() {
  const wanted = files.slice(0, visible).filter((of) => !known.has(key(of)));
  const next = async () => {
    for (let of = wanted.shift(); of; of = wanted.shift()) {
      try {
        known.set(key(of), await (isError(of) ? readErrorFile(of.file) : digest(of.file)));
      } catch (error) {
        // A file may have gone meanwhile; the next refresh shows it.
        if (!(error instanceof Refusal)) throw error;
        if (error.status === 401 || error.status === 403) return;
        continue;
      }
      const place = byId("snapshots").querySelector(`[data-file="${CSS.escape(of.file)}"] .more`);
      place?.replaceChildren(...details(of));
    }
  };
  await Promise.all(Array.from({ length: LOOKS }, next));
}

/** Shows the list. */
export function render() {
  const focused = document.activeElement?.closest?.("#snapshots [data-file]")?.dataset.file;
  const action = document.activeElement?.dataset?.action;
  byId("snapshots").replaceChildren(...files.slice(0, visible).map(row));
  byId("snapshots-none").hidden = files.length > 0;
  byId("snapshots-more").hidden = files.length <= visible;
  if (!focused) return;
  const same = byId("snapshots").querySelector(`[data-file="${CSS.escape(focused)}"] [data-action="${action}"]`);
  (same ?? byId("snapshots-title")).focus();
}

function row(of) {
  const item = element("li");
  item.dataset.file = of.file;
  const about = element("div", undefined, "about");
  const name = element("p", undefined, "file");
  name.append(element("strong", of.file));
  if (isError(of)) name.append(" ", element("span", text("snapshots.failed"), "state failed"));
  const facts = element("p", undefined, "hint");
  const when = element("time", date(of.modified));
  when.dateTime = of.modified.toISOString();
  if (!isError(of)) facts.append(bytes(of.size), " · ");
  facts.append(when);
  const more = element("div", undefined, "more");
  more.append(...details(of));
  about.append(name, facts, more);
  const buttons = element("div", undefined, "buttons");
  const button = (action, act, className) => {
    const made = element("button", text(`snapshots.${action}`), className);
    made.type = "button";
    made.dataset.action = action;
    made.setAttribute("aria-label", text(`snapshots.${action}Of`, { file: of.file }));
    made.addEventListener("click", () => act(of).catch(actions.refuse));
    buttons.append(made);
  };
  if (!isError(of)) {
    button("download", save);
    button("import", actions.examine);
  }
  button("delete", remove, "quiet");
  item.append(about, buttons);
  if (downloads.has(of.file)) item.append(downloads.get(of.file).shown);
  return item;
}

/** The digest of a snapshot, or what an error file says. */
function details(of) {
  const told = known.get(key(of));
  if (!told) return [];
  if (isError(of)) return [explained(withStatus(told))];
  const opened = element("details");
  const summary = element("summary", `${text("snapshots.digest")} `);
  summary.dataset.action = "digest";
  summary.append(element("code", `${told.slice(0, DIGEST_START)}…`));
  const whole = element("code", told, "digest");
  const copy = element("button", text("copy"), "quiet small");
  copy.type = "button";
  copy.dataset.action = "copy";
  copy.setAttribute("aria-label", text("snapshots.copyDigest", { file: of.file }));
  copy.addEventListener("click", () => copyText(told, copy).catch(actions.refuse));
  opened.append(summary, whole, copy);
  return [opened];
}

/** Copies a text, and says so on the button. */
export async function copyText(words, button) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    throw new Error(text("fault.copying"));
  }
  button.textContent = text("copied");
  speak(text("copied"));
}

async function remove({ file }) {
  const sure = await actions.ask({
    title: text("delete.title", { file }), words: text("delete.text"), yes: text("delete.yes"),
  });
  if (!sure) return;
  await removeSnapshot(file);
  await refresh();
  byId("snapshots-title").focus();
  speak(text("snapshots.deleted", { file }));
}

/** Downloads a file: to disk as its bytes come, where the browser can do that; by way of memory when that suffices. */
async function save(of) {
  if (downloads.has(of.file)) return;
  if ("showSaveFilePicker" in window) {
    let handle;
    try {
      handle = await window.showSaveFilePicker({ suggestedName: of.file });
    } catch (error) {
      if (error.name === "AbortError") return;
      throw saving(error);
    }
    return running(of, async (stop, onBytes) => {
      const response = await download(of.file, stop.signal);
      const counted = new TransformStream({
        transform(piece, to) { onBytes(piece.length); to.enqueue(piece); },
      });
      const target = await handle.createWritable().catch((error) => { throw saving(error); });
      // Ends or gives up the file with the stream: there is no half of it.
      await response.body.pipeThrough(counted).pipeTo(target, { signal: stop.signal });
    });
  }
  if (of.size >= IN_MEMORY_BYTES) return showCommands(of.file);
  return running(of, async (stop, onBytes) => {
    const response = await download(of.file, stop.signal);
    const pieces = [];
    for (const reader = response.body.getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) break;
      pieces.push(value);
      onBytes(value.length);
    }
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(pieces, { type: "application/zip" }));
    link.download = of.file;
    link.click();
    // The browser has begun to save by then.
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

const saving = (error) => new Error(text("fault.saving", { words: error.message }));

/** Shows the bar of a download while it runs. */
async function running(of, work) {
  const stop = new AbortController();
  const shown = element("div", undefined, "bar-row");
  const bar = element("progress");
  bar.max = Math.max(1, of.size);
  bar.value = 0;
  bar.setAttribute("aria-label", text("snapshots.downloading", { file: of.file }));
  const share = element("span", percent(0), "percent");
  const cancel = element("button", text("cancel"), "quiet");
  cancel.type = "button";
  cancel.addEventListener("click", () => stop.abort());
  shown.append(bar, share, cancel);
  downloads.set(of.file, { stop, shown });
  render();
  let [done, shownAt] = [0, 0];
  try {
    await work(stop, (length) => {
      done += length;
      if (Date.now() - shownAt < SHOWN_MS) return;
      shownAt = Date.now();
      bar.value = done;
      share.textContent = percent((done / bar.max) * 100);
    });
    speak(text("snapshots.downloaded", { file: of.file }));
  } catch (error) {
    if (!stop.signal.aborted) throw error instanceof Refusal ? error : saving(error);
  } finally {
    downloads.delete(of.file);
    render();
  }
}

/** Shows commands that download a file outside of the browser. They name the token by a variable. */
function showCommands(file) {
  const url = snapshotUrl(file);
  const base = file.replace(/\.zip$/, "");
  byId("command-curl").textContent = `curl -f -C - -o ${file} -H "Authorization: Bearer $CELLEXPORT_TOKEN" '${url}'`;
  byId("command-cellexport").textContent = `cellexport download '${CELL}' ${base} ${file}`;
  for (const name of ["curl", "cellexport"]) {
    const button = byId(`copy-${name}`);
    button.textContent = text("copy");
    button.onclick = () => copyText(byId(`command-${name}`).textContent, button).catch(actions.refuse);
  }
  byId("commands").showModal();
}
