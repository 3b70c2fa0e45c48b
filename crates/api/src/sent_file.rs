//! A file as the body of an answer, sent by the kernel (sendfile(2)): no byte of it passes through this process.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use actix_web::web::Bytes;
use futures_util::{Stream, stream};
use model::limits;
use rustix::fs::sendfile;
use rustix::io::{Errno, pread};
use rustix::net::{SendFlags, send};
use tokio::net::TcpStream;

use crate::connection::{HandlersTurn, Line};

/// Sends a range of a file behind the head of the answer. The stream itself has nothing for the server library; it ends when
/// all was sent, or with an error that ends the connection.
pub(crate) fn body(line: Line, file: File, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::once(async move {
        let turn = line.turn().await?;
        all(&turn, Arc::new(file), range).await?;
        turn.end();
        Ok(Bytes::new())
    })
}

async fn all(turn: &HandlersTurn, file: Arc<File>, mut range: Range<u64>) -> io::Result<()> {
    loop {
        let (stream, file, next) = (turn.stream(), Arc::clone(&file), range.clone());
        // It waits for the disk when the kernel does not have the file in memory.
        let sending = tokio::task::spawn_blocking(move || some(&stream, &file, next));
        let sent = tokio::time::timeout(limits::READ_STALL, sending).await??;
        let (begin, result) = sent;
        turn.sent(begin - range.start);
        range.start = begin;
        let there_is_room = result?;
        if range.is_empty() {
            return Ok(());
        }
        if !there_is_room {
            turn.writable().await?;
        }
    }
}

/// Sends what there is room for, and not too much at once. Returns where the rest begins, and whether there was room.
fn some(stream: &TcpStream, file: &File, range: Range<u64>) -> (u64, io::Result<bool>) {
    let mut begin = range.start;
    let end = range.end.min(begin + limits::SENT_AT_ONCE);
    while begin < end {
        let left = (end - begin) as usize;
        let sent = match sendfile(stream, file, Some(&mut begin), left) {
            // Not every file system knows how.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => copy(stream, file, &mut begin, left),
            sent => sent,
        };
        match sent {
            Ok(0) => return (begin, Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return (begin, Ok(false)),
            Err(error) => return (begin, Err(error.into())),
        }
    }
    (begin, Ok(true))
}

/// Does what sendfile(2) does.
fn copy(stream: &TcpStream, file: &File, begin: &mut u64, most: usize) -> Result<usize, Errno> {
    let mut piece = vec![0; most.min(limits::PIECE)];
    let read = pread(file, &mut piece[..], *begin)?;
    let sent = send(stream, &piece[..read], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    *begin += sent as u64;
    Ok(sent)
}
