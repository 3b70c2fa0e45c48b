//! A real browser: Chromium without a window, told what to do by the WebDriver protocol (W3C), which is plain HTTP and JSON.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// Longest answer to a command, screenshots and logs included.
const ANSWER_BYTES: u64 = 64 << 20;
/// Longest command: a script may wait for the page.
const COMMAND: Duration = Duration::from_secs(120);
/// The member that names an element in answers (W3C WebDriver, section 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys beyond letters, as the protocol writes them.
pub mod keys {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
}

/// A browser with one page. It ends with the test.
pub struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser that prefers a language; nothing when `chromedriver` is not installed.
    pub fn start(language: &str) -> Option<Self> {
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = started.ok()?;
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says where it listens");
        // It must not fill the pipe and stop.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().expect("a directory");
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(COMMAND))
            .proxy(None)
            .build()
            .into();
        let mut browser =
            Self { driver, agent, session: format!("http://127.0.0.1:{port}/session"), _profile: profile };
        let answer = browser.post(
            "",
            json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": {
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                         "--no-proxy-server", "--disable-component-update", "--disable-background-networking",
                         "--hide-scrollbars", format!("--accept-lang={language}"), format!("--lang={language}"),
                         format!("--user-data-dir={}", browser._profile.path().display())],
            },
        } } }),
        );
        let id = answer["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        browser.post("/timeouts", json!({ "script": COMMAND.as_millis() as u64 }));
        // What the browser's own first page does is nobody's business here.
        browser.go("about:blank");
        browser.log("performance");
        Some(browser)
    }

    fn post(&self, command: &str, body: Value) -> Value {
        let url = format!("{}{command}", self.session);
        // Not by this crate's own client, which searches answers for secrets: what a browser holds are secrets.
        let sent = self.agent.post(&url).header("Content-Type", "application/json").send(body.to_string());
        let mut answer = sent.expect("chromedriver answers");
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().expect("an answer");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let error = &answer["value"]["error"];
        assert!(!error.is_string(), "{command}: {error} {}", answer["value"]["message"]);
        answer["value"].clone()
    }

    /// Goes to a URL.
    pub fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url }));
    }

    /// Runs a script in the page, the body of an async function; what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.run_with(script, json!([]))
    }

    /// The same with `arguments`.
    pub fn run_with(&self, script: &str, arguments: Value) -> Value {
        let script = format!("return (async (...given) => {{ {script} }})(...arguments)");
        self.post("/execute/sync", json!({ "script": script, "args": arguments }))
    }

    /// Commands of the browser's own protocol, for what WebDriver has no words for.
    pub fn command(&self, name: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": name, "params": parameters }))
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Clicks an element as a mouse does: it must be visible, and nothing may lie over it.
    pub fn click(&self, selector: &str) {
        self.post(&format!("/element/{}/click", self.element(selector)), json!({}));
    }

    /// Types into an element; the name of a file into a control for files.
    pub fn type_into(&self, selector: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.element(selector)), json!({ "text": text }));
    }

    /// Presses a key, wherever the focus is.
    pub fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("/actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    /// What a reader sees of an element.
    pub fn text(&self, selector: &str) -> String {
        let found = self.run_with("return document.querySelector(given[0])?.innerText ?? ''", json!([selector]));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Whether an element is there and can be seen.
    pub fn shows(&self, selector: &str) -> bool {
        self.run_with("return document.querySelector(given[0])?.checkVisibility() ?? false", json!([selector])) == true
    }

    /// Sets the size of what is seen of the page, in CSS pixels, whatever the window can do.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size);
    }

    /// Sets what the reader's system prefers, such as `prefers-color-scheme`.
    pub fn prefer(&self, feature: &str, value: &str) {
        self.command("Emulation.setEmulatedMedia", json!({ "features": [{ "name": feature, "value": value }] }));
    }

    /// What stands in a log, `browser` (the console) or `performance` (the network), since it was read last.
    pub fn log(&self, kind: &str) -> Vec<Value> {
        self.post("/se/log", json!({ "type": kind })).as_array().cloned().unwrap_or_default()
    }

    /// Keeps a picture of the page in a directory, when there is one to keep pictures in: of the whole page, or of what is
    /// seen of one that is very long or lies behind a dialog.
    pub fn picture(&self, directory: Option<&Path>, name: &str) {
        let Some(directory) = directory else { return };
        use base64::Engine;
        let whole = self.run("return !document.querySelector('dialog[open]') && document.body.scrollHeight < 4000");
        let shot = self.command("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": whole }));
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap_or_default());
        std::fs::write(directory.join(format!("{name}.png")), bytes.expect("base64")).expect("written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, the driver does not.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
