//! A TCP proxy in front of a server, to take the server away from one test without taking it away from the others.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const UP: u8 = 0;
const DOWN: u8 = 1;
const FROZEN: u8 = 2;

/// The proxy; everything ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Starts forwarding to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(AtomicU8::new(UP));
        let open = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { address, state: Arc::clone(&state), open: Arc::clone(&open) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.load(SeqCst) == DOWN {
                    continue; // Dropped: the client sees a closed connection at once.
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                let mut list = open.lock().expect("no panic holds it");
                for stream in [&client, &server] {
                    list.push(stream.try_clone().expect("a second handle"));
                }
                drop(list);
                let back = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                for (from, to) in [(client, server), back] {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || forward(from, to, &state));
                }
            }
        });
        proxy
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections and closes new ones at once.
    pub fn down(&self) {
        self.state.store(DOWN, SeqCst);
        for stream in self.open.lock().expect("no panic holds it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps connections, takes new ones, and forwards nothing.
    pub fn freeze(&self) {
        self.state.store(FROZEN, SeqCst);
    }

    /// Forwards again.
    pub fn up(&self) {
        self.state.store(UP, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.down();
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        while state.load(SeqCst) == FROZEN {
            std::thread::sleep(Duration::from_millis(10));
        }
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
