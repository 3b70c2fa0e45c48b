//! A TCP proxy in front of a server, to take the server away from one test without taking it away from the others.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const UP: u8 = 0;
const DOWN: u8 = 1;
const FROZEN: u8 = 2;

/// The proxy; everything ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    open: Mutex<Vec<TcpStream>>,
    /// Whose commands, and which, are done without an answer, and how many more of them.
    losing: Mutex<(Vec<u8>, Vec<u8>)>,
    to_lose: AtomicU32,
}

impl Proxy {
    /// Starts forwarding to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let proxy = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.state.load(SeqCst) == DOWN {
                    continue; // Dropped: the client sees a closed connection at once.
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                let mut list = shared.open.lock().expect("no panic holds it");
                for stream in [&client, &server] {
                    list.push(stream.try_clone().expect("a second handle"));
                }
                drop(list);
                // Set as soon as the client has said that it is the one whose answers get lost.
                let loses = Arc::new(AtomicBool::new(false));
                let back = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                for (way, (from, to)) in [(Way::There, (client, server)), (Way::Back, back)] {
                    let (shared, loses) = (Arc::clone(&shared), Arc::clone(&loses));
                    std::thread::spawn(move || forward(way, from, to, &shared, &loses));
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
        self.shared.state.store(DOWN, SeqCst);
        self.cut();
    }

    /// Cuts all connections; new ones are welcome.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().expect("no panic holds it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Keeps connections, takes new ones, and forwards nothing.
    pub fn freeze(&self) {
        self.shared.state.store(FROZEN, SeqCst);
    }

    /// Forwards again.
    pub fn up(&self) {
        self.shared.state.store(UP, SeqCst);
    }

    /// Lets the next `times` commands of PostgreSQL clients of this name be done that end with this tag (`COMMIT`,
    /// `UPDATE 1`), and cuts their connections instead of answering. All clients have to connect anew for it.
    pub fn lose_answers(&self, application: &str, tag: &str, times: u32) {
        let losing = (format!("\0{application}\0").into_bytes(), format!("{tag}\0").into_bytes());
        *self.shared.losing.lock().expect("no panic holds it") = losing;
        self.shared.to_lose.store(times, SeqCst);
        self.cut();
    }

    /// How many of these answers are still to be lost.
    pub fn answers_to_lose(&self) -> u32 {
        self.shared.to_lose.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.down();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

fn forward(way: Way, mut from: TcpStream, mut to: TcpStream, shared: &Shared, loses: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        while shared.state.load(SeqCst) == FROZEN {
            std::thread::sleep(Duration::from_millis(10));
        }
        match way {
            Way::There if shared.to_lose.load(SeqCst) > 0 => {
                if contains(&buffer[..n], &shared.losing.lock().expect("no panic holds it").0) {
                    loses.store(true, SeqCst);
                }
            }
            // The server says so at the end of the command: it is done.
            Way::Back if loses.load(SeqCst) => {
                let is_it = contains(&buffer[..n], &shared.losing.lock().expect("no panic holds it").1);
                let one_less = |left: u32| left.checked_sub(1);
                if is_it && shared.to_lose.fetch_update(SeqCst, SeqCst, one_less).is_ok() {
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
            }
            Way::There | Way::Back => {}
        }
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}
