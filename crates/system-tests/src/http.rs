//! A plain HTTP/1.1 client that sends exactly what a test says, wrong requests included.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::secrets;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, transfer coding removed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of an error answer; empty when the body is no error document of exactly the known shape.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let shape = json["message"]["lang"] == "en" && json["message"]["value"].is_string();
        let code = json["code"].as_str().filter(|_| shape).unwrap_or_default();
        code.to_owned()
    }

    /// The message text of an error answer.
    pub fn message(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["message"]["value"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request on a new connection and reads the answer to its end.
///
/// `Host`, `Connection: close` and, with a body, `Content-Length` are added unless given.
pub fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> std::io::Result<Answer> {
    let mut stream = begin(address, method, target, headers, body.map(<[u8]>::len))?;
    // A server that answers before reading the whole body may close the connection: the answer is there all the same.
    let _ = stream.write_all(body.unwrap_or_default());
    finish(stream, method)
}

/// Sends the head of a request on a new connection; the body is the caller's.
pub fn begin(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    length: Option<usize>,
) -> std::io::Result<TcpStream> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !given("host") {
        head.push_str(&format!("Host: localhost:{}\r\n", address.port()));
    }
    if !given("connection") {
        head.push_str("Connection: close\r\n");
    }
    if let Some(length) = length
        && !given("content-length")
        && !given("transfer-encoding")
    {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Reads the answer to a request: as long as it says it is, or to the end of the connection. Fails when a secret stands
/// in it.
pub fn finish(mut stream: TcpStream, method: &str) -> std::io::Result<Answer> {
    let (mut raw, mut piece) = (Vec::new(), [0; 16 << 10]);
    while !is_whole(&raw, method) {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => raw.extend_from_slice(&piece[..n]),
            Err(error) if raw.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    let answer = parse(&raw, method).ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {raw:?}")))?;
    secrets::search_answer(&answer, method);
    Ok(answer)
}

/// Tells whether an answer has the length it announced.
fn is_whole(raw: &[u8], method: &str) -> bool {
    let Some((answer, rest)) = head(raw) else { return false };
    if method == "HEAD" || matches!(answer.status, 204 | 304) {
        return true;
    }
    let length = answer.header("content-length").and_then(|n| n.parse().ok());
    length.is_some_and(|length: usize| rest.len() >= length)
}

/// Reads the head of the final answer; the rest is its body.
fn head(mut raw: &[u8]) -> Option<(Answer, &[u8])> {
    loop {
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
        let mut lines = std::str::from_utf8(&raw[..end]).ok()?.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        raw = &raw[end + 4..];
        if status == 100 {
            continue;
        }
        let headers = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
            .collect();
        return Some((Answer { status, headers, body: Vec::new() }, raw));
    }
}

fn parse(raw: &[u8], method: &str) -> Option<Answer> {
    let (mut answer, body) = head(raw)?;
    answer.body = match answer.header("transfer-encoding") {
        Some("chunked") if method != "HEAD" => unchunk(body)?,
        _ => body.to_vec(),
    };
    Some(answer)
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}
