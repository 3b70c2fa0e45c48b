//! The pages, in a real browser: a person exports, looks, downloads, imports and deletes, by mouse and by keyboard, in both
//! languages, on a wide screen and on a narrow one. `PAGE_PICTURES` names a directory to keep pictures in.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use system_tests::browser::{Browser, keys};
use system_tests::judge::skipped;
use system_tests::process::Process;
use system_tests::system::{Options, System, TOKEN};

/// An installation with a cell, a browser, and the cell's page in it.
struct Place {
    browser: Browser,
    system: System,
    origin: String,
    pictures: Option<PathBuf>,
}

impl Place {
    /// Nothing when there is no browser here.
    fn new(language: &str, documents: &str) -> Option<Self> {
        Self::open(language, documents, Options::default(), |unit| format!("http://{unit}/cell1/"))
    }

    fn open(language: &str, documents: &str, options: Options, cell: impl Fn(&str) -> String) -> Option<Self> {
        let Some(browser) = Browser::start(language) else {
            skipped("chromedriver is not installed");
            return None;
        };
        let system = System::start_with(options);
        system.sample_cell("cell1", &["--documents", documents, "--files", "40"]);
        let cell = cell(&format!("localhost:{}", system.address.port()));
        browser.resize(1200, 900);
        // Before any script of the page: what its policy forbids is remembered, and what nobody caught.
        let watching = "window.violations = [];
            addEventListener('securitypolicyviolation', (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
            window.faults = [];
            addEventListener('error', (event) => faults.push(event.message));
            addEventListener('unhandledrejection', (event) => faults.push(String(event.reason)));";
        browser.command("Page.addScriptToEvaluateOnNewDocument", json!({ "source": watching }));
        browser.go(&format!("{cell}__export/ui"));
        let origin = browser.run("return location.origin").as_str().unwrap().to_owned();
        let place = Self { browser, system, origin, pictures: std::env::var("PAGE_PICTURES").ok().map(PathBuf::from) };
        place.until_shown("#sign-in");
        Some(place)
    }

    fn picture(&self, name: &str) {
        self.browser.picture(self.pictures.as_deref(), name);
    }

    fn worker(&mut self) -> Process {
        self.system.worker_with(&[("JOB_HEARTBEAT_SECS", "0.1")])
    }

    fn sign_in(&self, token: &str) {
        self.browser.run("document.getElementById('token').value = ''");
        self.browser.type_into("#token", token);
        self.browser.click("#sign-in-button");
    }

    fn until_shown(&self, selector: &str) {
        self.system.eventually(&format!("{selector} is shown"), || self.browser.shows(selector));
    }

    fn until_says(&self, selector: &str, words: &str) {
        self.system.eventually(&format!("{selector} says {words}"), || self.browser.text(selector).contains(words));
    }

    fn choose_language(&self, language: &str) {
        self.browser.run_with(
            "const select = document.getElementById('language'); select.value = given[0];
             select.dispatchEvent(new Event('change', { bubbles: true }))",
            json!([language]),
        );
    }

    fn row(file: &str) -> String {
        format!("#snapshots [data-file='{file}']")
    }

    /// Nothing is wider than the screen.
    fn fits(&self, what: &str) {
        let width =
            self.browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]");
        assert!(width[0].as_u64() <= width[1].as_u64(), "{what}: {width}");
    }

    /// Every text stands out from what is behind it (WCAG 2.2, 1.4.3), and does so after all changes of colour.
    fn contrasts(&self) {
        let faint = self.browser.run(
            "await Promise.all(document.getAnimations().map((a) => a.finished));
             const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
             const light = (colour) => parts(colour).slice(0, 3)
                 .map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                 .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
             const behind = (of) => {
                 for (; of; of = of.parentElement) {
                     const colour = getComputedStyle(of).backgroundColor;
                     if ((parts(colour)[3] ?? 1) > 0) return colour;
                 }
                 return 'rgb(255, 255, 255)';
             };
             const own = (of) => [...of.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
             return [...document.body.querySelectorAll('*')]
                 .filter((of) => own(of) && of.checkVisibility() && !of.disabled).map((of) => {
                     const [a, b] = [light(getComputedStyle(of).color), light(behind(of))];
                     return [of.textContent, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
                 }).filter(([, contrast]) => contrast < 4.5)",
        );
        assert_eq!(faint, json!([]));
    }

    /// The console is silent, the policy was kept, and nothing was asked of anybody else. Answers that say no are in the
    /// console too: only those that the test wanted.
    fn is_clean(&self, refused: &[u64]) {
        assert_eq!(self.browser.run("return violations"), json!([]));
        assert_eq!(self.browser.run("return faults"), json!([]));
        for entry in self.browser.log("browser") {
            let text = entry["message"].as_str().unwrap_or_default();
            let wanted = refused.iter().any(|status| text.contains(&format!("status of {status}")));
            assert!(wanted, "the console says: {entry}");
        }
        let mut asked = 0;
        for entry in self.browser.log("performance") {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default()).unwrap_or_default();
            if event["message"]["method"] != "Network.requestWillBeSent" {
                continue;
            }
            let url = event["message"]["params"]["request"]["url"].as_str().unwrap_or_default().to_owned();
            let own =
                url.starts_with(&format!("{}/", self.origin)) || url.starts_with("data:") || url.starts_with("blob:");
            assert!(own, "the page asks for {url}");
            assert!(!url.contains("marker") && !url.contains(TOKEN), "a token in a URL");
            asked += 1;
        }
        assert!(asked > 3, "the network is listened to");
    }
}

#[test]
fn the_page_is_served_to_anybody_with_a_strict_policy() {
    let system = System::start();
    system.make_cell("cell1");
    let read = |target: &str| system.anonymous("GET", target, &[], None);
    for (target, media_type) in [
        ("/cell1/__export/ui", "text/html; charset=utf-8"),
        ("/cell1/__export/ui/page.js", "text/javascript; charset=utf-8"),
        ("/cell1/__export/ui/page.css", "text/css; charset=utf-8"),
        ("/openapi.html", "text/html; charset=utf-8"),
        ("/openapi.js", "text/javascript; charset=utf-8"),
        ("/openapi.css", "text/css; charset=utf-8"),
    ] {
        let answer = read(target);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{target}");
        let policy = answer.header("content-security-policy").unwrap();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.split("; ").any(|given| given == directive), "{target}: {policy}");
        }
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-cache")]
        {
            assert_eq!(answer.header(name), Some(value), "{target}");
        }
        let etag = answer.header("etag").unwrap();
        for known in [etag.to_owned(), format!("W/{etag}"), format!("\"x\", {etag}")] {
            let again = system.anonymous("GET", target, &[("If-None-Match", &known)], None);
            assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag)), "{target}");
            assert!(again.header("content-security-policy").is_some());
        }
        let head = system.anonymous("HEAD", target, &[], None);
        assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, Some(etag)), "{target}");
        assert_eq!(system.anonymous("POST", target, &[], Some(b"")).code(), "PR405-MC-0001", "{target}");
    }
    assert_eq!(read("/nobody/__export/ui").code(), "PR404-DV-0003");
    assert_eq!(read("/cell1/__export/ui/nothing.js").code(), "PR404-MC-0001");
    let slash = read("/cell1/__export/ui/");
    assert_eq!((slash.status, slash.header("location")), (308, Some("../ui")));
}

#[test]
fn a_person_exports_looks_downloads_and_deletes() {
    let Some(mut place) = Place::new("en-GB", "120000") else { return };
    let browser = &place.browser;
    place.picture("sign-in");

    // A wrong token, a text that is none, the right one.
    place.sign_in("AR~wrong-token-of-nobody");
    place.until_says("#token-fault", "PR401-AU-0006");
    assert!(browser.text("#token-fault").contains("not accepted here"));
    assert!(!browser.shows("#work"));
    place.picture("wrong-token");
    browser.run("document.getElementById('token').value = ''");
    browser.type_into("#token", "two words");
    browser.press(keys::ENTER);
    place.until_says("#token-fault", "not a token");
    place.sign_in(TOKEN);
    place.until_shown("#work");
    assert!(browser.shows("#snapshots-none") && !browser.shows("#sign-in"));
    assert_eq!(
        browser.run("return [document.getElementById('token').value, location.href.includes('token')]"),
        json!(["", false])
    );
    place.picture("empty");

    // An export whose bar moves. Every value that the bar takes is written down.
    browser.run(
        "window.bar = []; window.spoken = []; window.facts = '';
         new MutationObserver(() => { facts += document.getElementById('job-facts').innerText; })
             .observe(document.getElementById('job-facts'), { childList: true });
         new MutationObserver(() => bar.push(document.getElementById('job-bar').value))
             .observe(document.getElementById('job-bar'), { attributes: true });
         new MutationObserver(() => spoken.push([Date.now(), document.getElementById('spoken').textContent]))
             .observe(document.getElementById('spoken'), { childList: true, characterData: true, subtree: true })",
    );
    browser.type_into("#export-name", "no such name!");
    browser.press(keys::ENTER);
    place.until_says("#notice-text", "1 to 192 letters");
    browser.run("document.getElementById('export-name').value = ''");
    browser.type_into("#export-name", "first");
    browser.click("#export-button");
    place.until_says("#job-state", "waiting");
    place.until_says("#job-facts", "Place in the queue");
    place.picture("waiting");
    let _worker = place.system.worker_with(&[("JOB_HEARTBEAT_SECS", "0.1")]);
    let browser = &place.browser;
    place.system.eventually("the bar stands in the middle", || {
        let value = browser.run("return document.getElementById('job-bar').value").as_f64().unwrap_or_default();
        value > 5.0 && value < 95.0
    });
    place.picture("running");
    browser.prefer("prefers-color-scheme", "dark");
    place.picture("running-dark");
    browser.prefer("prefers-color-scheme", "light");
    place.until_says("#job-state", "done");
    place.until_says("#job-outcome", "The snapshot first is ready");
    let bar: Vec<f64> = serde_json::from_value(browser.run("return bar")).unwrap();
    assert!(bar.is_sorted(), "it never goes back: {bar:?}");
    assert!(bar.iter().any(|value| (1.0..=99.0).contains(value)) && bar.last() == Some(&100.0), "it moves: {bar:?}");
    let facts = browser.run("return facts");
    for fact in ["Place in the queue", "Documents", "Files", "Data", "Rate", "Time left"] {
        assert!(facts.as_str().unwrap().contains(fact), "{fact}: {facts}");
    }
    let spoken: Vec<(u64, String)> = serde_json::from_value(browser.run("return spoken")).unwrap();
    assert!(spoken.iter().any(|(_, words)| words.contains("is ready")), "{spoken:?}");
    let progress: Vec<u64> = spoken.iter().filter(|(_, w)| w.contains("Export of first:")).map(|(at, _)| *at).collect();
    assert!(progress.windows(2).all(|pair| pair[1] - pair[0] >= 5000), "not more often than every 5 s: {spoken:?}");

    // Listed with size, date and digest.
    let row = Place::row("first.zip");
    place.until_says(&row, "SHA-256");
    let head = place.system.request("HEAD", "/cell1/__snapshot/first.zip", &[], None);
    let size: f64 = head.header("content-length").unwrap().parse().unwrap();
    let said = browser.text(&row);
    assert!(said.contains("MiB") || said.contains("KiB"), "{size}: {said}");
    let digest = place.system.value("SELECT encode(sha256, 'hex') FROM snapshot_entry WHERE base_name = 'first'");
    assert!(said.contains(&digest[..12]) && !said.contains(&digest), "{said}");
    browser.click(&format!("{row} summary"));
    assert_eq!(browser.text(&format!("{row} code.digest")), digest);
    let may = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    browser.command("Browser.grantPermissions", may);
    browser.click(&format!("{row} [data-action=copy]"));
    place.until_says(&row, "Copied");
    assert_eq!(browser.run("return navigator.clipboard.readText()"), json!(digest));
    place.picture("listed");

    // Downloaded: to a file as the bytes come, and by way of memory where the browser has no such thing.
    let through_a_file = browser.run(
        "const root = await navigator.storage.getDirectory();
         window.saved = await root.getFileHandle('saved.zip', { create: true });
         window.showSaveFilePicker = async () => window.saved;
         document.querySelector(`#snapshots [data-file='first.zip'] [data-action=download]`).click();
         const spoken = document.getElementById('spoken');
         while (!spoken.textContent.includes('was downloaded')) await new Promise((r) => setTimeout(r, 20));
         const file = await saved.getFile();
         const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()));
         return Array.from(hash, (b) => b.toString(16).padStart(2, '0')).join('')",
    );
    assert_eq!(through_a_file, json!(digest));
    let downloads = place.system.directory().join("downloads");
    std::fs::create_dir(&downloads).unwrap();
    let allowed = json!({ "behavior": "allow", "downloadPath": downloads.display().to_string() });
    browser.command("Browser.setDownloadBehavior", allowed);
    browser.run("delete window.showSaveFilePicker; delete Window.prototype.showSaveFilePicker");
    browser.click(&format!("{row} [data-action=download]"));
    place.system.eventually("it is saved", || downloads.join("first.zip").exists());
    assert_eq!(std::fs::read(downloads.join("first.zip")).unwrap().len() as f64, size);

    // One that is too large for the memory of the browser: commands, without the token in them.
    browser.run(
        "const real = window.fetch;
         window.fetch = async (url, options) => {
             const answer = await real(url, options);
             if (options.method !== 'PROPFIND') return answer;
             const listed = (await answer.text()).replace(/<getcontentlength>[0-9]+/, '<getcontentlength>5000000000');
             return new Response(listed, { status: 207 });
         }",
    );
    browser.click("#refresh");
    place.until_says(&row, "4.7");
    browser.click(&format!("{row} [data-action=download]"));
    place.until_shown("#commands[open]");
    let (curl, own) = (browser.text("#command-curl"), browser.text("#command-cellexport"));
    assert!(curl.contains(&format!("'{}/cell1/__snapshot/first.zip'", place.origin)), "{curl}");
    assert_eq!(own, format!("cellexport download '{}/cell1/' first first.zip", place.origin));
    assert!(!curl.contains(TOKEN) && curl.contains("$CELLEXPORT_TOKEN"), "{curl}");
    place.picture("commands");
    browser.press(keys::ESCAPE);
    place.system.eventually("the dialog closes", || !browser.shows("#commands"));
    place.is_clean(&[401]);
    browser.run("location.reload()");
    place.until_says(&row, "SHA-256");

    // A second export of that name is refused, in words.
    browser.type_into("#export-name", "first");
    browser.click("#export-button");
    place.until_says("#notice-text", "There is a snapshot of this name already");
    assert!(browser.text("#notice-text").contains("PR409-DV-0002"));
    place.picture("refused");
    browser.click("#notice-close");

    // Deleted, but only after a yes.
    browser.click(&format!("{row} [data-action=delete]"));
    place.until_shown("#question[open]");
    place.picture("delete");
    browser.press(keys::ESCAPE);
    place.system.eventually("the dialog closes", || !browser.shows("#question"));
    assert_eq!(place.system.files("cell1"), ["first.zip"]);
    let focused = browser.run("return document.activeElement.dataset.action ?? ''");
    assert_eq!(focused, "delete", "the focus is back where it was");
    browser.press(keys::ENTER);
    place.until_shown("#question[open]");
    browser.click("#question-yes");
    place.until_shown("#snapshots-none");
    assert!(place.system.files("cell1").is_empty());

    // A token that does not hold any more brings the form back; signing out forgets a good one.
    let held = "return sessionStorage.getItem('cell-export token')";
    browser.run("sessionStorage.setItem('cell-export token', 'AR~run-out')");
    browser.click("#refresh");
    place.until_says("#token-fault", "PR401-AU-0006");
    assert!(!browser.shows("#work") && browser.run(held).is_null());
    place.sign_in(TOKEN);
    place.until_shown("#work");
    browser.click("#sign-out");
    place.until_shown("#sign-in");
    assert!(!browser.shows("#work") && browser.run(held).is_null());
    place.is_clean(&[401, 409]);
}

#[test]
fn a_failed_export_is_explained_and_a_cancelled_one_too() {
    let Some(mut place) = Place::new("en-GB", "12") else { return };
    place.sign_in(TOKEN);
    place.until_shown("#work");
    place.system.execute("UPDATE node SET pmeta = '{' WHERE path <> ''");
    let worker = place.worker();
    let browser = &place.browser;
    browser.type_into("#export-name", "broken");
    browser.click("#export-button");
    place.until_says("#job-state", "failed");
    for place_of_it in ["#job-outcome", &Place::row("broken.error")] {
        place.until_says(place_of_it, "PR500-DV-0002");
        place.until_says(place_of_it, "The description of a file or box in the cell is damaged.");
        let link = browser.run_with("return document.querySelector(given[0] + ' a').href", json!([place_of_it]));
        assert_eq!(link, format!("{}/openapi.html#PR500-DV-0002", place.origin));
    }
    assert!(!browser.shows(&format!("{} [data-action=import]", Place::row("broken.error"))));
    place.picture("failed");
    browser.prefer("prefers-color-scheme", "dark");
    place.picture("failed-dark");
    browser.prefer("prefers-color-scheme", "light");
    drop(worker);

    // Nobody works: an export waits, is found again after a reload, and can be cancelled.
    browser.click("#job-close");
    browser.type_into("#export-name", "unwanted");
    browser.click("#export-button");
    place.until_says("#job-state", "waiting");
    browser.run("location.reload()");
    place.until_says("#job-title", "Export of unwanted");
    browser.click("#job-cancel");
    place.until_says("#job-state", "cancelled");
    place.until_shown(&Place::row("unwanted.error"));
    place.until_says(&Place::row("unwanted.error"), "It was cancelled.");

    // The stream of events breaks after the first one, and then does not come at all: the job is followed all the same.
    browser.run(
        "window.asked = [];
         const real = window.fetch;
         window.fetch = async (url, options) => {
             if (window.away) throw new TypeError('nobody there');
             if (options.headers.Prefer) asked.push('held');
             if (!String(url).endsWith('/events')) return real(url, options);
             asked.push(options.headers['Last-Event-ID'] ?? 'first');
             if (asked.length > 1) throw new TypeError('no events here');
             const reader = (await real(url, options)).body.getReader();
             const { value } = await reader.read();
             reader.cancel();
             return new Response(value);
         }",
    );
    browser.type_into("#export-name", "unheard");
    browser.click("#export-button");
    place.until_says("#job-title", "Export of unheard");
    let asked = || serde_json::from_value::<Vec<String>>(browser.run("return asked")).unwrap();
    place.system.eventually("an answer is held", || asked().contains(&"held".to_owned()));
    let before = asked();
    assert!(before[0] == "first" && before[1].parse::<i64>().is_ok(), "it goes on after what it has seen: {before:?}");
    browser.run("window.away = true");
    place.until_says("#job-outcome", "The connection is lost. Trying again");
    browser.run("window.away = false");
    place.system.eventually("it is there again", || !browser.text("#job-outcome").contains("lost"));
    browser.click("#job-cancel");
    place.until_says("#job-state", "cancelled");
    place.is_clean(&[]);
}

#[test]
fn an_import_shows_first_what_it_would_change_and_asks() {
    let Some(mut place) = Place::new("ja-JP", "400") else { return };
    let browser = &place.browser;
    assert_eq!(browser.run("return document.documentElement.lang"), "ja");
    place.until_says("#sign-in-title", "このセルを開く");
    place.picture("sign-in-ja");
    place.sign_in(TOKEN);
    place.until_shown("#work");

    // Brought in by the page itself.
    let file = place.system.sample(&["--name", "cell1", "--documents", "500"]);
    let upload = place.system.directory().join("other.zip");
    std::fs::copy(&file, &upload).unwrap();
    let faulty = place.system.directory().join("faulty.zip");
    std::fs::write(&faulty, &std::fs::read(&file).unwrap()[..5000]).unwrap();
    browser.type_into("#upload-file", &upload.display().to_string());
    browser.click("#upload-button");
    place.until_shown(&Place::row("other.zip"));
    assert_eq!(place.system.files("cell1"), ["other.zip"]);
    let _worker = place.system.worker_with(&[("JOB_HEARTBEAT_SECS", "0.1")]);
    let browser = &place.browser;

    // Examined: what would change is counted, and nothing is changed.
    let count = "SELECT count(*) FROM document WHERE generation = (SELECT generation FROM cell WHERE name = 'cell1')
                 AND type = 'UserData'";
    assert_eq!(place.system.value(count), "400");
    browser.click(&format!("{} [data-action=import]", Place::row("other.zip")));
    place.until_says("#job-outcome", "このスナップショットはインポートできます。");
    let found = browser.run("return [...document.querySelectorAll('#job-outcome tbody tr')].map((row) => [...row.cells].map((c) => c.textContent))");
    assert_eq!(found[0][0], "ドキュメント");
    assert_ne!(found[0][1], "0", "{found}");
    assert_eq!(place.system.value(count), "400");
    place.picture("dry-run-ja");
    place.choose_language("en");
    place.until_says("#job-outcome", "This snapshot can be imported.");
    place.picture("dry-run");

    // Asked for, refused once, then done.
    browser.click("#job-import");
    place.until_shown("#question[open]");
    assert!(browser.text("#question-title").contains("“cell1”"));
    place.picture("import-question");
    browser.press(keys::ENTER);
    place.system.eventually("Enter is a no", || !browser.shows("#question"));
    assert_eq!(place.system.value("SELECT count(*) FROM job WHERE kind = 'import'"), "0");
    browser.click("#job-import");
    place.until_shown("#question[open]");
    browser.click("#question-yes");
    place.until_says("#job-title", "Import of other");
    place.until_says("#job-state", "done");
    place.until_says("#job-outcome", "now holds what the snapshot other says");
    assert_eq!(place.system.value(count), "500");

    // What is wrong with a snapshot is listed, and there is nothing to go on with.
    browser.click("#job-close");
    let stuffed = place.system.directory().join("stuffed.zip");
    stuff(&file, &stuffed);
    browser.type_into("#upload-file", &stuffed.display().to_string());
    browser.click("#upload-button");
    place.until_shown(&Place::row("stuffed.zip"));
    browser.click(&format!("{} [data-action=import]", Place::row("stuffed.zip")));
    place.until_says("#job-outcome", "This snapshot cannot be imported.");
    assert!(browser.text("#job-outcome .faults").contains("readme.txt: not an entry of a snapshot"));
    assert!(!browser.shows("#job-import"));
    place.picture("dry-run-faults");

    // A faulty file is refused before anything else; words and code.
    browser.type_into("#upload-file", &faulty.display().to_string());
    browser.click("#upload-button");
    place.until_shown(&Place::row("faulty.zip"));
    browser.click(&format!("{} [data-action=import]", Place::row("faulty.zip")));
    place.until_says("#notice-text", "PR400-");
    place.picture("faulty");
    place.is_clean(&[400]);
}

/// Copies a snapshot, with an entry that belongs into none.
fn stuff(snapshot: &Path, stuffed: &Path) {
    let mut read = zip::ZipArchive::new(File::open(snapshot).unwrap()).unwrap();
    let mut written = zip::ZipWriter::new(File::create(stuffed).unwrap());
    for index in 0..read.len() {
        written.raw_copy_file(read.by_index_raw(index).unwrap()).unwrap();
    }
    written.start_file("readme.txt", zip::write::SimpleFileOptions::default()).unwrap();
    written.finish().unwrap();
}

#[test]
fn it_fits_a_narrow_screen_and_every_control_is_reached_by_keyboard() {
    let Some(place) = Place::new("en-GB", "12") else { return };
    let browser = &place.browser;
    let file = place.system.sample(&["--name", "cell1"]);
    let bytes = std::fs::read(&file).unwrap();
    let long = "a".repeat(192);
    for name in ["one", "two", &long] {
        assert_eq!(place.system.put("cell1", &format!("{name}.zip"), &[], &bytes).status, 201);
    }
    browser.resize(320, 640);
    place.fits("the form");
    place.picture("phone-sign-in");
    place.sign_in(TOKEN);
    place.until_shown("#work");
    place.until_says(&Place::row("one.zip"), "SHA-256");
    browser.click(&format!("{} summary", Place::row(&format!("{long}.zip"))));
    place.fits("the list");
    assert_eq!(place.system.post_export("cell1", "waiting").status, 202);
    browser.run("location.reload()");
    place.until_shown("#job");
    place.until_says(&Place::row("one.zip"), "SHA-256");
    place.fits("a job");
    place.picture("phone");
    place.contrasts();
    browser.prefer("prefers-color-scheme", "dark");
    place.picture("phone-dark");
    place.contrasts();
    browser.prefer("prefers-color-scheme", "light");
    browser.click(&format!("{} [data-action=delete]", Place::row("two.zip")));
    place.until_shown("#question[open]");
    place.fits("a question");
    place.picture("phone-delete");
    browser.press(keys::ESCAPE);
    place.system.eventually("Escape closes it", || !browser.shows("#question"));
    place.choose_language("ja");
    place.until_says("#snapshots-title", "スナップショット");
    place.fits("the same in Japanese");
    place.picture("phone-ja");
    place.choose_language("en");
    place.until_says("#snapshots-title", "Snapshots");

    // Tab reaches everything that can be used, in the order in which it stands, and shows where it is.
    browser.run(
        "document.activeElement.blur(); window.scrollTo(0, 0); document.body.focus();
                 window.getSelection().removeAllRanges(); window.reached = []",
    );
    let controls = browser.run(
        "window.controls = [...document.querySelectorAll('a[href], button, input, select, summary')]
             .filter((control) => control.checkVisibility() && !control.disabled && !control.closest('dialog'));
         return controls.length",
    );
    let first = browser.run("controls[0].focus(); return document.activeElement === controls[0]");
    assert_eq!(first, true);
    for index in 1..controls.as_u64().unwrap() {
        browser.press(keys::TAB);
        let (here, outline) = {
            let found = browser.run(
                "const style = getComputedStyle(document.activeElement);
                 return [controls.indexOf(document.activeElement), document.activeElement.outerHTML.slice(0, 100),
                         style.outlineStyle, parseFloat(style.outlineWidth)]",
            );
            (found[0].as_i64() == Some(index as i64), found)
        };
        assert!(here, "after {index} steps the focus is at {outline}");
        assert!(outline[2] != "none" && outline[3].as_f64() >= Some(2.0), "the focus can be seen: {outline}");
    }
    // Everything that is used has a name, and every input a label.
    let nameless = browser.run(
        "return controls.filter((control) => !(control.ariaLabel || control.textContent.trim() ||
             control.labels?.length)).map((control) => control.outerHTML)",
    );
    assert_eq!(nameless, json!([]));
    place.is_clean(&[]);
}

#[test]
fn a_cell_that_is_a_host_has_the_same_page() {
    let options = Options { settings: vec![("PATH_BASED_CELL_URL", "false".to_owned())], ..Options::default() };
    let Some(place) = Place::open("en-GB", "12", options, |unit| format!("http://cell1.{unit}/")) else { return };
    let browser = &place.browser;
    assert_eq!(browser.text("#cell-name"), "cell1");
    place.sign_in(TOKEN);
    place.until_shown("#work");
    for _ in 0..2 {
        browser.run("document.getElementById('export-name').value = ''");
        browser.type_into("#export-name", "one");
        browser.click("#export-button");
        place.until_says("#job-title", "Export of one");
    }
    place.until_says("#notice-text", "PR409-");
    place.is_clean(&[409]);
    // The description is the unit's.
    let link = browser.run("return document.querySelector('#notice-text a').href");
    let unit = place.origin.replace("cell1.", "");
    assert!(link.as_str().unwrap().starts_with(&format!("{unit}/openapi.html#PR409-")), "{link}");
    browser.go(link.as_str().unwrap());
    place.until_shown("tr:target");
}

#[test]
fn the_description_can_be_read() {
    let Some(place) = Place::new("en-GB", "12") else { return };
    let browser = &place.browser;
    browser.go(&format!("{}/openapi.html#PR409-CM-0002", place.origin));
    place.until_shown("#PR409-CM-0002");
    let answer = place.system.anonymous("GET", "/openapi.json", &[], None);
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    // Every operation, also those with a method that OpenAPI 3.1 does not know, every schema, every code.
    for item in document["paths"].as_object().unwrap().values() {
        let known = item.as_object().unwrap().iter().filter(|(name, _)| *name != "servers");
        for (_, operation) in known {
            let several =
                operation.as_object().filter(|all| !all.contains_key("operationId") && !all.contains_key("responses"));
            let all: Vec<&Value> = match several {
                Some(more) => more.values().collect(),
                None => vec![operation],
            };
            for operation in all {
                let id = operation["operationId"].as_str().unwrap();
                let shown = browser.run_with("return document.getElementById(given[0])?.textContent", json!([id]));
                let shown = shown.as_str().unwrap_or_default();
                assert!(shown.contains(operation["summary"].as_str().unwrap()), "{id}: {shown}");
                for status in operation["responses"].as_object().unwrap().keys() {
                    assert!(shown.contains(status), "{id} {status}: {shown}");
                }
            }
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(browser.shows(&format!("#schema-{name}")), "{name}");
    }
    for code in document["x-error-codes"].as_array().unwrap() {
        let shown = browser.text(&format!("#{}", code["code"].as_str().unwrap()));
        assert!(shown.contains(code["text"].as_str().unwrap()), "{code}: {shown}");
    }
    let top = browser.run("return document.getElementById('PR409-CM-0002').getBoundingClientRect().top");
    assert!((0.0..900.0).contains(&top.as_f64().unwrap()), "the anchor is in sight: {top}");
    place.picture("docs-codes");
    browser.run(
        "const operation = document.querySelector('.operation:nth-of-type(4)');
         operation.querySelectorAll('details').forEach((d) => { d.open = true; });
         operation.scrollIntoView()",
    );
    place.picture("docs-operation");
    browser.run("scrollTo(0, 0)");
    place.picture("docs");
    browser.resize(320, 640);
    place.fits("the description");
    place.contrasts();
    browser.prefer("prefers-color-scheme", "dark");
    place.contrasts();
    place.picture("docs-phone-dark");
    place.is_clean(&[]);
}
