//! Looks at the machine: ports, cores, memory, open files.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::{Doctor, Finding, in_a_thread, size};
use crate::limits;
use crate::settings::InternalSettings;

/// Looks whether an address is free, or answered by a service of ours, which this request shows by 200.
pub async fn port(setting: &'static str, address: SocketAddr, request: &'static str) -> Finding {
    in_a_thread(move || match TcpListener::bind(address) {
        Ok(_) => Finding::ok(format!("{address} is free: the service does not run here")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            match answers(address, request, limits::LOOK_TIMEOUT) {
                Ok(true) => Finding::ok(format!("{address} is answered by the service")),
                Ok(false) | Err(_) => Finding::fault(
                    format!("{address} is taken, and not by this service"),
                    format!("end what listens there (`ss -ltnp` names it), or change {setting}"),
                ),
            }
        }
        Err(error) => Finding::fault(
            format!("{address}: {error}"),
            format!("let {setting} be an address of this host, and a port that its user may open"),
        ),
    })
    .await
}

/// Looks at the internal port, if the service has one.
pub async fn internal_port(doctor: &mut Doctor, settings: &InternalSettings) {
    match settings.listen {
        Some(address) => {
            doctor.look("internal port", port("INTERNAL_LISTEN", address, "GET /healthz")).await;
        }
        None => doctor.skip(&["internal port"], "there are no probes and no metrics: set INTERNAL_LISTEN"),
    }
}

/// Tells whether whoever listens there answers this request with 200. Each step may take so long.
///
/// # Errors
/// When there is no answer.
pub fn answers(mut address: SocketAddr, request: &str, patience: Duration) -> std::io::Result<bool> {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(&start == b"HTTP/1.1 200")
}

/// Looks how many files the process may have open.
pub fn open_files(wanted: u64) -> Finding {
    // The services take what they are granted at most.
    match getrlimit(Resource::Nofile).maximum {
        Some(granted) if granted < wanted => Finding::warning(
            format!("{granted} may be open, the service would use {wanted}"),
            "raise the limit: LimitNOFILE of systemd, ulimits of compose, ulimit -Hn of a shell",
        ),
        Some(granted) => Finding::ok(format!("{granted} may be open, the service uses {wanted} at most")),
        None => Finding::ok("as many as the service wants"),
    }
}

/// Looks how much memory the process may have, if somebody has limited it.
pub fn memory(wanted: u64, advice: &str) -> Finding {
    match memory_limit() {
        None => Finding::ok(format!("nobody limits it; the service takes {} at most", size(wanted))),
        Some(granted) if granted < wanted => {
            Finding::warning(format!("limited to {}, the service may take {}", size(granted), size(wanted)), advice)
        }
        Some(granted) => {
            Finding::ok(format!("limited to {}, the service takes {} at most", size(granted), size(wanted)))
        }
    }
}

/// The smallest limit of the control groups that this process is in, of either version.
fn memory_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut limit = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container the path may be that of the host, and the root the container's own.
        let mut path = path.trim_matches('/');
        loop {
            let read = std::fs::read_to_string(format!("{root}/{path}/{file}"));
            // "max", or a number near 2^63, is none.
            let found = read.ok().and_then(|text| text.trim().parse().ok()).filter(|bytes: &u64| *bytes < 1 << 60);
            limit = limit.into_iter().chain(found).min();
            if path.is_empty() {
                break;
            }
            path = path.rfind('/').map_or("", |end| &path[..end]);
        }
    }
    limit
}
