// Puts the page together: who may see it, what the forms do, which language it speaks.

import {
  CELL_NAME, Refusal, activeJob, order, token, upload, whenTokenIsRefused,
} from "./service.js";
import { explained, hide as hideJob, render as renderJob, speak, watch } from "./progress.js";
import { clear, hasFile, more, refresh, render as renderSnapshots, useActions } from "./snapshots.js";
import { currentLanguage, percent, preferredLanguage, text, useLanguage } from "./texts.js";

const NAME = /^[a-zA-Z0-9_-]{1,192}$/;
const FILE = /^[a-zA-Z0-9_-]{1,192}\.zip$/;
const LANGUAGE = "cell-export language";

const byId = (id) => document.getElementById(id);

/** The notice and the fault of the token, to be said again in another language. */
let noticed = null;
let tokenFault = null;
/** The snapshot that a dry run was made of. */
let examined = null;

// --- who may see it ---------------------------------------------------------------------------------------------------

function showSignIn(refusal) {
  token.forget();
  hideJob();
  clear();
  dismiss();
  byId("work").hidden = true;
  byId("sign-out").hidden = true;
  byId("sign-in").hidden = false;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  tokenFault = refusal ?? null;
  renderTokenFault();
  byId("token").focus();
}

function renderTokenFault() {
  const fault = tokenFault;
  byId("token").toggleAttribute("aria-invalid", Boolean(fault));
  if (fault) byId("token").setAttribute("aria-invalid", "true");
  if (fault instanceof Refusal) byId("token-fault").replaceChildren(explained({ ...fault, words: fault.message }));
  else byId("token-fault").textContent = fault ? text(fault) : "";
}

async function open() {
  await refresh();
  byId("token").value = "";
  byId("sign-in").hidden = true;
  byId("work").hidden = false;
  byId("sign-out").hidden = false;
  const active = await activeJob();
  if (active) follow(active);
}

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = byId("token").value.trim();
  if (!/^[!-~]+$/.test(given)) {
    tokenFault = given ? "sign.garbled" : "sign.none";
    renderTokenFault();
    byId("token").focus();
    return;
  }
  tokenFault = null;
  renderTokenFault();
  token.keep(given);
  byId("sign-in-button").disabled = true;
  try {
    await open();
    byId("export-name").focus();
    speak(text("sign.opened"));
  } catch (error) {
    // A token that was refused has shown the form again.
    if (token.get()) showSignIn(error);
  } finally {
    byId("sign-in-button").disabled = false;
  }
});

byId("sign-out").addEventListener("click", () => showSignIn());
whenTokenIsRefused(showSignIn);

// --- what is told -----------------------------------------------------------------------------------------------------

function refuse(error) {
  if (error?.name === "AbortError") return;
  // The form is back, and says it.
  if (error instanceof Refusal && (error.status === 401 || error.status === 403)) return;
  notice(error);
}

function notice(error) {
  noticed = error;
  byId("notice").hidden = false;
  byId("notice").className = "notice bad";
  renderNotice();
  byId("notice").scrollIntoView({ block: "nearest" });
}

function renderNotice() {
  if (!noticed) return;
  const shown = noticed instanceof Refusal
    ? explained({ ...noticed, words: noticed.message })
    : document.createTextNode(typeof noticed === "string" ? text(noticed) : noticed.message);
  byId("notice-text").replaceChildren(shown);
}

function dismiss() {
  noticed = null;
  byId("notice").hidden = true;
  byId("notice-text").replaceChildren();
}

byId("notice-close").addEventListener("click", () => {
  dismiss();
  byId("main").focus();
});

window.addEventListener("unhandledrejection", ({ reason }) => refuse(reason));

/** Asks for a confirmation. Escape is a no, and the focus goes back to where it was. */
function ask({ title, words, fact, yes }) {
  const dialog = byId("question");
  byId("question-title").textContent = title;
  byId("question-text").textContent = words;
  byId("question-fact").textContent = fact ?? "";
  byId("question-fact").hidden = !fact;
  byId("question-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  // Whoever presses Enter too fast has changed nothing.
  byId("question-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

byId("question-yes").addEventListener("click", () => byId("question").close("yes"));
byId("question-no").addEventListener("click", () => byId("question").close(""));
byId("commands-close").addEventListener("click", () => byId("commands").close());

// --- jobs -------------------------------------------------------------------------------------------------------------

function follow(path) {
  watch(path, (job) => {
    examined = job.kind === "dry-run" ? job.name : null;
    if (job.kind === "export") refresh().catch(refuse);
  }).catch(refuse);
}

async function start(kind, name) {
  dismiss();
  follow(await order(kind, name));
}

byId("export-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = byId("export-name").value.trim();
  const bad = name !== "" && !NAME.test(name);
  byId("export-name").setAttribute("aria-invalid", String(bad));
  if (bad) {
    notice("export.badName");
    byId("export-name").focus();
    return;
  }
  byId("export-button").disabled = true;
  try {
    await start("export", name);
    byId("export-name").value = "";
  } catch (error) {
    refuse(error);
  } finally {
    byId("export-button").disabled = false;
    if (document.activeElement === document.body) byId("export-button").focus();
  }
});

byId("job-close").addEventListener("click", () => {
  hideJob();
  byId("snapshots-title").focus();
});

byId("job-import").addEventListener("click", async () => {
  const name = examined;
  const sure = name && await ask({
    title: text("import.title", { cell: CELL_NAME }), words: text("import.text", { name }), yes: text("import.yes"),
  });
  if (!sure) return;
  byId("job-import").hidden = true;
  byId("job").focus();
  await start("import", name).catch(refuse);
});

useActions({
  ask,
  refuse,
  examine: async ({ file }) => {
    await start("dry-run", file.replace(/\.zip$/, ""));
    byId("job").focus();
  },
});

byId("refresh").addEventListener("click", () => refresh().catch(refuse));
byId("snapshots-more").addEventListener("click", () => more().catch(refuse));

// --- uploads ----------------------------------------------------------------------------------------------------------

byId("upload-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = byId("upload-file").files;
  const fault = !file ? "upload.none" : FILE.test(file.name) ? null : "upload.badName";
  byId("upload-file").setAttribute("aria-invalid", String(Boolean(fault)));
  if (fault) {
    notice(fault);
    byId("upload-file").focus();
    return;
  }
  const sure = !hasFile(file.name) || await ask({
    title: text("upload.replaceTitle", { file: file.name }), words: text("upload.replaceText"),
    yes: text("upload.replaceYes"),
  });
  if (!sure) return;
  dismiss();
  const stop = new AbortController();
  byId("upload-cancel").onclick = () => stop.abort();
  byId("upload-moving").hidden = false;
  byId("upload-button").disabled = true;
  const show = (done, total) => {
    byId("upload-bar").value = total ? (done / total) * 100 : 0;
    byId("upload-percent").textContent = percent(byId("upload-bar").value);
  };
  show(0, 1);
  try {
    await upload(file.name, file, show, stop.signal);
    byId("upload-form").reset();
    await refresh();
    speak(text("upload.done", { file: file.name }));
  } catch (error) {
    refuse(error);
  } finally {
    byId("upload-moving").hidden = true;
    byId("upload-button").disabled = false;
    if (document.activeElement === document.body) byId("upload-file").focus();
  }
});

// --- which language ---------------------------------------------------------------------------------------------------

function speakLanguage(name) {
  useLanguage(name);
  byId("language").value = currentLanguage();
  document.title = `${CELL_NAME} – ${text("product")}`;
  renderTokenFault();
  renderNotice();
  renderJob();
  renderSnapshots();
}

byId("language").addEventListener("change", ({ target }) => {
  sessionStorage.setItem(LANGUAGE, target.value);
  speakLanguage(target.value);
});

byId("cell-name").textContent = CELL_NAME;
speakLanguage(sessionStorage.getItem(LANGUAGE) ?? preferredLanguage());
if (token.get()) open().catch((error) => { if (token.get()) { showSignIn(error); } });
else showSignIn();
