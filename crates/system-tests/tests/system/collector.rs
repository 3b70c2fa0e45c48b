//! A collector: takes spans as OTLP over HTTP, or takes them and never answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) state: String,
    /// As numbers of the protocol: 2 is a server's, 5 a consumer's.
    pub(crate) kind: i32,
    /// What is said of an error, when it is one.
    pub(crate) error: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// What one request brought: its head, and its body.
type Sent = (String, Vec<u8>);

/// Listens until the test ends.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Collector {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::listen(true)
    }

    /// One that never answers.
    pub(crate) fn hanging() -> Self {
        Self::listen(false)
    }

    fn listen(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), sent: Arc::default() };
        let sent = Arc::clone(&collector.sent);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let sent = Arc::clone(&sent);
                std::thread::spawn(move || take(connection, answers, &sent));
            }
        });
        collector
    }

    /// Its URL, as a setting has it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// The spans that came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.sent().iter().flat_map(|(_, body)| spans(body)).collect()
    }
}

/// Takes one request after the other.
fn take(connection: TcpStream, answers: bool, sent: &Mutex<Vec<Sent>>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
        let mut body = vec![0; length.trim().parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        sent.lock().unwrap().push((head, body));
        if answers {
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
            writer.write_all(answer.as_bytes()).ok()?;
        }
    }
}

fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let of = attributes(&resource.resource.unwrap().attributes);
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                service: of["service.name"].clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                state: span.trace_state,
                kind: span.kind,
                error: span.status.filter(|status| status.code == 2).map(|status| status.message),
                attributes: attributes(&span.attributes),
            });
        }
    }
    spans
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| {
        let value = value.value.as_ref().and_then(|value| value.value.as_ref()).unwrap();
        if let Value::IntValue(number) = value {
            return number.to_string();
        }
        let Value::StringValue(text) = value else { panic!("{value:?}") };
        text.clone()
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}
