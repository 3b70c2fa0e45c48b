//! Requests. Every wait has an end, redirects are not followed, and what fails for a passing reason is sent again, so
//! often and no oftener, if it may be.

use std::io::{self, Read};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use ureq::http::{HeaderValue, Response};
use ureq::{Agent, Body, SendBody, http};

use crate::configuration::Configuration;
use crate::failure::{Exit, Failure};
use crate::limits;
use crate::terminal::Output;

/// Sends requests with the user's token. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    token: Option<SecretString>,
    timeout: Duration,
    tries: u32,
    output: Output,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request<'r> {
    method: &'static str,
    url: &'r str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// It may be sent twice.
    repeatable: bool,
    /// How long the server may hold its answer, beyond the usual.
    held: Duration,
    /// Longest time for the whole body of the answer.
    longest: Option<Duration>,
}

impl<'r> Request<'r> {
    /// A request without a body. All methods but DELETE may be sent twice.
    pub(crate) fn new(method: &'static str, url: &'r str) -> Self {
        let repeatable = method != "DELETE";
        Self { method, url, headers: Vec::new(), body: Vec::new(), repeatable, held: Duration::ZERO, longest: None }
    }

    /// An order with a JSON body. Its key lets it be sent twice.
    pub(crate) fn order(url: &'r str, body: &Value) -> Self {
        let key = format!("\"{}\"", uuid::Uuid::new_v4());
        let mut order = Self::new("POST", url).header("Idempotency-Key", key);
        order.body = body.to_string().into_bytes();
        order.header("Content-Type", "application/json")
    }

    /// Adds a header field.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Asks the server to hold its answer until something has changed.
    pub(crate) fn held(mut self, longest: Duration) -> Self {
        self.held = longest;
        self.header("Prefer", format!("wait={}", longest.as_secs()))
    }

    /// Asks for bytes of a file from the unit itself: redirects are not followed.
    pub(crate) fn of_file(url: &'r str) -> Self {
        Self::new("GET", url).header("Prefer", "no-redirect")
    }

    /// Says how long the body of the answer may be.
    pub(crate) fn of_length(mut self, bytes: u64) -> Self {
        self.longest = Some(limits::TIMEOUT + Duration::from_secs(bytes / limits::DOWNLOAD_RATE));
        self
    }

    /// Whoever wants to send it again has taken care of that.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

impl Client {
    /// A client for everything that a configuration says.
    pub(crate) fn new(configuration: &Configuration) -> Self {
        let timeout = Some(configuration.timeout);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .user_agent(concat!("cellexport/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .timeout_send_request(timeout)
            .build()
            .new_agent();
        let Configuration { token, timeout, tries, output, .. } = configuration;
        Self { agent, token: token.clone(), timeout: *timeout, tries: *tries, output: *output }
    }

    /// How often a request is sent at most.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Sends a request, several times where that is needed. Error answers are failures.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        self.send_accepting(request, &[])
    }

    /// The same; these error statuses are answers, too.
    pub(crate) fn send_accepting(&self, request: &Request<'_>, accepted: &[u16]) -> Result<Answer, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (failure, asked) = match self.once(request) {
                Ok(answer) if answer.is_success() || accepted.contains(&answer.status()) => return Ok(answer),
                Ok(answer) => {
                    let asked = answer.retry_after();
                    (answer.into_failure(request.method == "HEAD"), asked)
                }
                Err(failure) => (failure, None),
            };
            if failure.exit != Exit::Unavailable || !request.repeatable || attempt >= self.tries {
                return Err(failure);
            }
            self.pause(attempt, asked, &failure);
        }
    }

    /// Pauses before something is tried again.
    pub(crate) fn pause(&self, attempt: u32, asked: Option<Duration>, failure: &Failure) {
        let doubled = limits::PAUSE.saturating_mul(2u32.saturating_pow(attempt - 1));
        let pause = asked.unwrap_or(doubled).clamp(Duration::from_millis(100), limits::PAUSE_MAX);
        self.output.say(&format!("{failure}; trying again in {} s", pause.as_secs_f64().ceil()));
        std::thread::sleep(pause);
    }

    fn once(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let body = match request.method {
            "POST" | "PUT" => SendBody::from_owned_reader(io::Cursor::new(request.body.clone())),
            _ => SendBody::none(),
        };
        self.run(request, body, request.body.len() as u64)
    }

    /// Sends a request once, with a body from somewhere.
    pub(crate) fn put(&self, request: &Request<'_>, body: &mut dyn Read, length: u64) -> Result<Answer, Failure> {
        self.run(request, SendBody::from_reader(body), length)
    }

    fn run(&self, request: &Request<'_>, body: SendBody<'_>, length: u64) -> Result<Answer, Failure> {
        let mut builder = http::Request::builder().method(request.method).uri(request.url);
        builder = builder.header("Accept", "application/json, */*;q=0.5");
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut value = value.map_err(|_| Failure::new(Exit::Usage, "the token cannot be sent"))?;
            value.set_sensitive(true);
            builder = builder.header("Authorization", value);
        }
        if matches!(request.method, "POST" | "PUT") {
            builder = builder.header("Content-Length", length);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let built = builder.body(body).map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}", request.url)))?;
        let sending = self.timeout + Duration::from_secs(length / limits::UPLOAD_RATE);
        // What was sent may have to be written to a disk before there is an answer.
        let answering = self.timeout + request.held + Duration::from_secs(length / limits::DISK_RATE);
        let configured = self
            .agent
            .configure_request(built)
            .timeout_send_body(Some(sending))
            .timeout_recv_response(Some(answering))
            .timeout_per_read(Some(answering))
            .timeout_recv_body(Some(request.longest.unwrap_or(answering)))
            .build();
        match self.agent.run(configured) {
            Ok(response) => Ok(Answer { response, url: request.url.to_owned() }),
            Err(error) => Err(unavailable(request.url, &error)),
        }
    }
}

/// A request that got no answer.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open; what is not known may pass")]
fn unavailable(url: &str, error: &ureq::Error) -> Failure {
    let exit = match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => Exit::Usage,
        _ => Exit::Unavailable,
    };
    let host = url.split('/').nth(2).unwrap_or(url);
    Failure::new(exit, format!("{host} does not answer: {error}"))
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Body>,
    url: String,
}

impl Answer {
    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn is_success(&self) -> bool {
        self.response.status().is_success()
    }

    /// The value of a header field, if it is a text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Of a partial answer: where it starts, and how long the whole is.
    pub(crate) fn part(&self) -> Option<(u64, u64)> {
        if self.status() != 206 {
            return None;
        }
        let (range, total) = self.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
    }

    /// Its strong entity tag.
    pub(crate) fn etag(&self) -> Option<String> {
        self.header("etag").filter(|etag| etag.starts_with('"')).map(str::to_owned)
    }

    /// How long the server wants to be left alone; dates are not looked at.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }

    /// A bounded body.
    pub(crate) fn read(mut self, longest: u64) -> Result<Vec<u8>, Failure> {
        let read = self.response.body_mut().with_config().limit(longest).read_to_vec();
        read.map_err(|error| unavailable(&self.url, &error))
    }

    /// A JSON body.
    pub(crate) fn json(self) -> Result<Value, Failure> {
        let url = self.url.clone();
        let body = self.read(limits::JSON_ANSWER)?;
        serde_json::from_slice(&body).map_err(|_| Failure::new(Exit::Other, format!("{url} answered with no JSON")))
    }

    /// The body, piece by piece.
    pub(crate) fn into_reader(self) -> impl Read {
        self.response.into_body().into_with_config().limit(u64::MAX).reader()
    }

    /// What an error answer says: `PR409-CM-0002 text`.
    pub(crate) fn into_failure(self, bodiless: bool) -> Failure {
        let status = self.status();
        let exit = Exit::of_status(status);
        let reason = self.response.status().canonical_reason().unwrap_or_default();
        let plain = format!("{} answered {status} {reason}", self.url);
        let body = if bodiless { Vec::new() } else { self.read(limits::ERROR_ANSWER).unwrap_or_default() };
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = error_text(&document).unwrap_or(plain);
        let failure = Failure::new(exit, text);
        match (exit, status) {
            (Exit::NotAllowed, 401) => {
                failure.next("give a token: --token-file, CELLEXPORT_TOKEN or the configuration")
            }
            _ => failure,
        }
    }
}

/// What an error document says: `PR409-CM-0002 text`.
pub(crate) fn error_text(document: &Value) -> Option<String> {
    let code = document["code"].as_str()?;
    Some(format!("{code} {}", document["message"]["value"].as_str().unwrap_or_default()))
}
