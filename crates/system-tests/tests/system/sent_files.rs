//! Files that the kernel sends: on one connection with everything else, and never a wrong byte.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use system_tests::strace::{self, Tampering};
use system_tests::system::{System, TOKEN};

const SIZE: usize = 12_000_000;

/// A connection that lives on, with several requests at once on their way.
struct Conversation(BufReader<TcpStream>);

/// A request, and what is to come of it.
struct Exchange {
    request: String,
    status: u16,
    body: Option<Vec<u8>>,
}

impl Conversation {
    fn with(system: &System) -> Self {
        let stream = TcpStream::connect(system.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, exchanges: &[Exchange]) {
        let port = self.0.get_ref().peer_addr().unwrap().port();
        let requests: String = exchanges.iter().map(|e| e.request.replace("PORT", &port.to_string())).collect();
        self.0.get_mut().write_all(requests.as_bytes()).unwrap();
    }

    /// Reads the head of the next answer; its status and the length of its body.
    fn head(&mut self) -> (u16, usize) {
        let mut lines = self.0.by_ref().lines().map(|line| line.expect("a head"));
        let status = lines.next().expect("an answer").split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut length = 0;
        for line in lines.take_while(|line| !line.is_empty()) {
            if let Some((_, value)) = line.split_once(": ").filter(|(name, _)| *name == "content-length") {
                length = value.parse().unwrap();
            }
        }
        (status, length)
    }

    fn hear(&mut self, exchange: &Exchange, pause: Duration) {
        let (status, length) = self.head();
        assert_eq!(status, exchange.status, "{}", exchange.request);
        let Some(expected) = &exchange.body else {
            return self.0.read_exact(&mut vec![0; length]).unwrap();
        };
        assert_eq!(length, expected.len(), "{}", exchange.request);
        let mut piece = vec![0; 300_000];
        for expected in expected.chunks(piece.len()) {
            self.0.read_exact(&mut piece[..expected.len()]).unwrap();
            assert!(piece[..expected.len()] == *expected, "other bytes for {}", exchange.request);
            std::thread::sleep(pause);
        }
    }
}

fn exchange(method: &str, path: &str, header: &str, status: u16, body: Option<&[u8]>) -> Exchange {
    let request = format!(
        "{method} /cell1/{path} HTTP/1.1\r\nHost: localhost:PORT\r\nAuthorization: Bearer {TOKEN}\r\n{header}\r\n"
    );
    Exchange { request, status, body: body.map(<[u8]>::to_vec) }
}

fn whole(bytes: &[u8]) -> Exchange {
    exchange("GET", "__snapshot/big.zip", "", 200, Some(bytes))
}

/// Any request that the api can answer, downloads above all.
fn anything(random: &mut fastrand::Rng, bytes: &[u8]) -> Exchange {
    let file = "__snapshot/big.zip";
    match random.u8(..10) {
        0 => whole(bytes),
        1 => exchange("GET", "__export", "", 200, None),
        2 => exchange("GET", "__snapshot/none.zip", "", 404, None),
        3 => exchange("GET", file, "Range: bytes=99999999-\r\n", 416, None),
        4 => exchange("PROPFIND", "__snapshot", "Depth: 1\r\n", 207, None),
        _ => {
            // Around the length from which on the kernel sends, and far above.
            let most = *random.choice(&[2, 65_535, 65_536, 65_537, 65_538, 1 << 20, 5_000_000]).unwrap();
            let begin = random.usize(..SIZE - most);
            let range = format!("Range: bytes={begin}-{}\r\n", begin + most - 1);
            exchange("GET", file, &range, 206, Some(&bytes[begin..begin + most]))
        }
    }
}

fn with_file() -> (System, Vec<u8>) {
    let system = System::start();
    system.make_cell("cell1");
    let mut bytes = vec![0; SIZE];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    // What looks like the end of a head is none.
    for end in bytes.chunks_mut(4096) {
        end[..4].copy_from_slice(b"\r\n\r\n");
    }
    assert_eq!(system.put("cell1", "big.zip", &[], &bytes).status, 201);
    (system, bytes)
}

#[test]
fn answers_of_one_connection_follow_each_other_exactly() {
    let (system, bytes) = with_file();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (system, bytes) = (&system, &bytes);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut conversation = Conversation::with(system);
                // Some clients wait, so that the kernel has no room and the server has to.
                let pause = Duration::from_millis(if seed % 2 == 0 { 0 } else { 2 });
                for _ in 0..12 {
                    let exchanges: Vec<_> = (0..random.u8(1..9)).map(|_| anything(&mut random, bytes)).collect();
                    conversation.say(&exchanges);
                    for exchange in &exchanges {
                        conversation.hear(exchange, pause);
                    }
                }
            });
        }
    });
}

#[test]
fn what_the_kernel_cannot_send_is_copied() {
    if !strace::works() {
        return;
    }
    let (system, bytes) = with_file();
    let _tampering = Tampering::with(system.api(), &["sendfile:error=EINVAL"], &[]);
    let mut conversation = Conversation::with(&system);
    let exchanges: Vec<_> = (0..3).map(|_| whole(&bytes)).collect();
    conversation.say(&exchanges);
    for exchange in &exchanges {
        conversation.hear(exchange, Duration::ZERO);
    }
}

/// Reads to the end of a connection, however it ends; how much came.
fn rest(mut conversation: Conversation) -> usize {
    let (mut came, mut piece) = (0, vec![0; 100_000]);
    while let Ok(read @ 1..) = conversation.0.read(&mut piece) {
        came += read;
    }
    came
}

#[test]
fn what_cannot_be_read_to_its_end_ends_the_connection() {
    let (system, bytes) = with_file();
    // Nothing may pass for the file's bytes, such as the next answer.
    let begin = |conversation: &mut Conversation| {
        conversation.say(&[whole(&bytes), exchange("GET", "__export", "", 200, None)]);
        assert_eq!(conversation.head(), (200, SIZE));
    };
    if strace::works() {
        let _tampering = Tampering::with(system.api(), &["sendfile:error=EIO"], &[]);
        let mut conversation = Conversation::with(&system);
        begin(&mut conversation);
        assert_eq!(rest(conversation), 0);
    }
    // They take nothing of the file, and a few mebibytes are on their way.
    let mut conversations: Vec<_> = (0..3).map(|_| Conversation::with(&system)).collect();
    conversations.iter_mut().for_each(begin);
    let files = system.stored_files();
    let [file] = &files[..] else { panic!("{files:?}") };
    OpenOptions::new().write(true).open(file).unwrap().set_len(1000).unwrap();
    for conversation in conversations {
        let came = rest(conversation);
        assert!(came < SIZE, "{came}");
    }
    let ended = "Response payload stream error";
    system.eventually("it is in the log", || system.api().log().matches(ended).count() >= 3);
    // The file is shorter than its row says: that is told before an answer begins.
    assert_eq!(system.request("GET", "/cell1/__snapshot/big.zip", &[], None).status, 503);
}
