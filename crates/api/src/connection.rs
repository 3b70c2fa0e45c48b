//! A client's connection, below the server library: it counts what the client takes, and lets a handler send for itself.
//!
//! The library copies each byte of an answer into a buffer of its own. Whoever has a file would rather have the kernel
//! send it (`sent_file`), after the head, which is the library's. So the connection has turns: a handler's answer asks for
//! its own, and gets it when the library has flushed the head. During that turn the library may not write, and a turn
//! that ends early ends the connection: no client ever takes other bytes for those of the file.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What stands between a head and what follows it (RFC 9112, section 2.1).
const END_OF_HEAD: [u8; 4] = *b"\r\n\r\n";

/// A connection, as the server library has it.
#[derive(Debug)]
pub(crate) struct Connection(Line);

/// A connection, as the handlers of its requests have it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Line(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: Arc<TcpStream>,
    taken: Cell<u64>,
    turn: Cell<Turn>,
    /// The last bytes that the library wrote.
    last: Cell<[u8; 4]>,
    flushed: Notify,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Library,
    /// The library, until it has flushed the head that it has now. So much was taken when that was asked for.
    Head {
        taken: u64,
    },
    /// The library has flushed it.
    Flushed {
        taken: u64,
    },
    Handler,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Line(Rc::new(Inner {
            stream: Arc::new(stream),
            taken: Cell::new(0),
            turn: Cell::new(Turn::Library),
            last: Cell::default(),
            flushed: Notify::new(),
        })))
    }

    pub(crate) fn line(&self) -> Line {
        self.0.clone()
    }

    fn stream(&self) -> &TcpStream {
        &self.0.0.stream
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream().poll_read_ready(context))?;
            match self.stream().try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.0.library_writes()?;
        loop {
            ready!(self.stream().poll_write_ready(context))?;
            match self.stream().try_write(bytes) {
                Ok(written) => {
                    self.0.0.wrote(&bytes[..written]);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The library flushes when it has written all that it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.0.library_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(self.stream(), Shutdown::Write)?))
    }
}

impl Inner {
    fn library_writes(&self) -> io::Result<()> {
        match self.turn.get() {
            Turn::Library | Turn::Head { .. } => Ok(()),
            Turn::Flushed { taken } => {
                self.turn.set(Turn::Head { taken });
                Ok(())
            }
            Turn::Handler => Err(io::Error::other("the server library writes while a file is sent")),
        }
    }

    fn wrote(&self, bytes: &[u8]) {
        self.taken.set(self.taken.get() + bytes.len() as u64);
        let (mut last, new) = (self.last.get(), &bytes[bytes.len().saturating_sub(4)..]);
        last.rotate_left(new.len());
        last[4 - new.len()..].copy_from_slice(new);
        self.last.set(last);
    }

    fn library_flushed(&self) {
        if let Turn::Head { taken } = self.turn.get() {
            self.turn.set(Turn::Flushed { taken });
            self.flushed.notify_one();
        }
    }
}

impl Line {
    /// Bytes of answers that were taken on behalf of the client since the connection was opened.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.get()
    }

    /// Ends the connection, whatever is on its way.
    pub(crate) fn end(&self) {
        // It may have ended by itself.
        let _ = shutdown(&self.0.stream, Shutdown::Both);
    }

    /// Waits until the head of the answer that is being given was flushed. To be called by that answer's body, which says
    /// nothing before.
    ///
    /// # Errors
    /// When what was flushed last is not the end of a head.
    pub(crate) async fn turn(&self) -> io::Result<HandlersTurn> {
        self.0.turn.set(Turn::Head { taken: self.taken() });
        let before = loop {
            self.0.flushed.notified().await;
            // It may have written more since, or it was flushed for somebody who has given up.
            if let Turn::Flushed { taken } = self.0.turn.get() {
                break taken;
            }
        };
        if before == self.taken() || self.0.last.get() != END_OF_HEAD {
            return Err(io::Error::other("a file cannot follow what is no head"));
        }
        self.0.turn.set(Turn::Handler);
        Ok(HandlersTurn { line: self.clone(), ended: false })
    }
}

/// The right to send. Dropped before [`HandlersTurn::end`], it ends the connection.
#[derive(Debug)]
pub(crate) struct HandlersTurn {
    line: Line,
    ended: bool,
}

impl HandlersTurn {
    /// Where to send, without waiting, from any thread.
    pub(crate) fn stream(&self) -> Arc<TcpStream> {
        Arc::clone(&self.line.0.stream)
    }

    /// Says that so many bytes were sent.
    pub(crate) fn sent(&self, bytes: u64) {
        self.line.0.taken.set(self.line.taken() + bytes);
    }

    /// Waits until more can be sent.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        let stream = &self.line.0.stream;
        loop {
            stream.writable().await?;
            // That there was no room was seen on another thread; the runtime has to see it, too.
            match stream.try_io(Interest::WRITABLE, || has_room(stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// All was sent that the head has promised: the library goes on.
    pub(crate) fn end(mut self) {
        self.ended = true;
        self.line.0.turn.set(Turn::Library);
    }
}

impl Drop for HandlersTurn {
    fn drop(&mut self) {
        if !self.ended {
            self.line.end();
        }
    }
}

fn has_room(stream: &TcpStream) -> io::Result<()> {
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    match poll(&mut asked, Some(&Timespec::default()))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    async fn opened() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        (Connection::new(listener.accept().await.expect("accepted").0), client)
    }

    fn asked(line: &Line) -> actix_web::rt::task::JoinHandle<io::Result<HandlersTurn>> {
        let line = line.clone();
        actix_web::rt::spawn(async move { line.turn().await })
    }

    /// A connection whose handler has its turn, behind a head of 19 bytes.
    async fn at_its_turn() -> (Connection, HandlersTurn, TcpStream) {
        let (mut connection, client) = opened().await;
        let asked = asked(&connection.line());
        tokio::task::yield_now().await;
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
        connection.flush().await.expect("flushed");
        let turn = asked.await.expect("no panic").expect("its turn");
        (connection, turn, client)
    }

    #[actix_web::test]
    async fn the_handler_sends_behind_the_head_and_the_library_behind_that() {
        let (mut connection, mut client) = opened().await;
        let line = connection.line();
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\nbefore").await.expect("written");
        connection.flush().await.expect("flushed");
        let asked = asked(&line);
        tokio::task::yield_now().await;
        // In two pieces, one after the other.
        for piece in ["HTTP/1.1 206 Partial Content\r", "\n\r\n"] {
            assert!(!asked.is_finished(), "the head is not there");
            connection.write_all(piece.as_bytes()).await.expect("written");
            tokio::task::yield_now().await;
        }
        assert!(!asked.is_finished(), "it is not flushed");
        connection.flush().await.expect("flushed");
        let turn = asked.await.expect("no panic").expect("its turn");
        connection.write_all(b"in between").await.expect_err("it is not the library's turn");
        turn.writable().await.expect("there is room");
        let sent = turn.stream().try_write(b"file").expect("sent");
        turn.sent(sent as u64);
        turn.end();
        connection.write_all(b"after").await.expect("written");
        assert_eq!(line.taken(), 25 + 32 + 4 + 5);
        drop((connection, line));
        let mut all = String::new();
        client.read_to_string(&mut all).await.expect("to the end");
        assert_eq!(all, "HTTP/1.1 200 OK\r\n\r\nbeforeHTTP/1.1 206 Partial Content\r\n\r\nfileafter");
    }

    #[actix_web::test]
    async fn nothing_is_sent_behind_what_is_no_head() {
        for flushed in ["", "HTTP/1.1 200 OK\r\n\r\nbody", "\r"] {
            let (mut connection, _client) = opened().await;
            connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("written");
            connection.flush().await.expect("flushed");
            let asked = asked(&connection.line());
            tokio::task::yield_now().await;
            connection.write_all(flushed.as_bytes()).await.expect("written");
            connection.flush().await.expect("flushed");
            assert!(asked.await.expect("no panic").is_err(), "{flushed:?}");
        }
    }

    #[actix_web::test]
    async fn a_turn_that_ends_early_ends_the_connection() {
        let (mut connection, turn, mut client) = at_its_turn().await;
        drop(turn);
        let mut all = Vec::new();
        let ended = timeout(Duration::from_secs(10), client.read_to_end(&mut all)).await;
        assert_eq!(ended.expect("in time").expect("no error"), 19);
        assert!(connection.write_all(b"more").await.is_err());
    }

    #[actix_web::test]
    async fn whoever_waits_for_room_is_woken_by_the_client() {
        let (_connection, turn, mut client) = at_its_turn().await;
        let stream = turn.stream();
        // As another thread does: the runtime does not see that there is no room.
        while rustix::net::send(&stream, &[0; 1 << 16], rustix::net::SendFlags::DONTWAIT).is_ok() {}
        timeout(Duration::from_millis(100), turn.writable()).await.expect_err("there is no room");
        let taking = actix_web::rt::spawn(async move {
            client.read_exact(&mut vec![0; 2 << 20]).await.expect("taken");
            client
        });
        timeout(Duration::from_secs(10), turn.writable()).await.expect("in time").expect("there is room");
        taking.abort();
    }
}
