//! Reading rows of `COPY … TO STDOUT (FORMAT binary)` from pieces of any size.
//!
//! The format is PostgreSQL's (documentation, "COPY", section "Binary Format"): a header, then per row a count of
//! fields and per field its length and bytes, then −1.

use bytes::{Buf, Bytes, BytesMut};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const HEADER: usize = SIGNATURE.len() + 8;

/// The stream is not in binary COPY format, or ends too early.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed binary COPY data: {0}")]
pub(super) struct CopyError(&'static str);

/// One row. Its fields are taken one after the other.
#[derive(Debug, Clone)]
pub(super) struct Row {
    left: usize,
    bytes: Bytes,
}

impl Row {
    /// How many fields are left.
    pub(super) fn fields(&self) -> usize {
        self.left
    }

    /// The next field: `None` for NULL, and behind the last one.
    pub(super) fn field(&mut self) -> Option<Bytes> {
        self.left = self.left.checked_sub(1)?;
        match self.bytes.get_i32() {
            -1 => None,
            length => Some(self.bytes.split_to(length as usize)),
        }
    }
}

/// Turns pieces into rows.
#[derive(Debug, Default)]
pub(super) struct CopyRows {
    /// What was pushed and is no row yet. Pieces that begin and end with a row are not copied.
    bytes: Bytes,
    started: bool,
    ended: bool,
}

impl CopyRows {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.bytes.is_empty() {
            self.bytes = piece;
            return;
        }
        let mut both = BytesMut::with_capacity(self.bytes.len() + piece.len());
        both.extend_from_slice(&self.bytes);
        both.extend_from_slice(&piece);
        self.bytes = both.freeze();
    }

    /// Returns the next row if it is whole.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, CopyError> {
        if !self.started {
            if self.bytes.len() < HEADER {
                return Ok(None);
            }
            if !self.bytes.starts_with(SIGNATURE) {
                return Err(CopyError("wrong signature"));
            }
            let extension = (&self.bytes[SIGNATURE.len() + 4..]).get_u32() as usize;
            if self.bytes.len() < HEADER + extension {
                return Ok(None);
            }
            self.bytes.advance(HEADER + extension);
            self.started = true;
        }
        if self.ended || self.bytes.len() < 2 {
            return Ok(None);
        }
        let fields = (&self.bytes[..]).get_i16();
        if fields == -1 {
            self.ended = true;
            self.bytes.advance(2);
            return Ok(None);
        }
        let left = usize::try_from(fields).map_err(|_| CopyError("a negative count of fields"))?;
        let Some(end) = self.end_of_row(left)? else { return Ok(None) };
        let mut bytes = self.bytes.split_to(end);
        bytes.advance(2);
        Ok(Some(Row { left, bytes }))
    }

    /// Says whether the end of the stream was seen and nothing follows it.
    pub(super) fn finish(&self) -> Result<(), CopyError> {
        if self.ended && self.bytes.is_empty() { Ok(()) } else { Err(CopyError("the stream ends too early")) }
    }

    fn end_of_row(&self, fields: usize) -> Result<Option<usize>, CopyError> {
        let mut at = 2;
        for _ in 0..fields {
            let Some(mut rest) = self.bytes.get(at..).filter(|r| r.len() >= 4) else { return Ok(None) };
            at += 4;
            match rest.get_i32() {
                -1 => {}
                length => at += usize::try_from(length).map_err(|_| CopyError("a negative length"))?,
            }
        }
        Ok((at <= self.bytes.len()).then_some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([0; 8]);
        for row in rows {
            out.extend((row.len() as i16).to_be_bytes());
            for field in *row {
                match field {
                    None => out.extend((-1i32).to_be_bytes()),
                    Some(bytes) => {
                        out.extend((bytes.len() as i32).to_be_bytes());
                        out.extend(*bytes);
                    }
                }
            }
        }
        out.extend((-1i16).to_be_bytes());
        out
    }

    #[test]
    fn rows_come_out_whole_however_the_stream_is_cut() {
        let bytes = stream(&[&[Some(b"Box"), Some(b"{}")], &[None, Some(b"")], &[]]);
        for size in 1..=bytes.len() {
            let mut reader = CopyRows::default();
            let mut rows = Vec::new();
            for piece in bytes.chunks(size) {
                reader.push(Bytes::copy_from_slice(piece));
                while let Some(mut row) = reader.next_row().expect("well-formed") {
                    rows.push((0..row.fields()).map(|_| row.field()).collect::<Vec<_>>());
                }
            }
            reader.finish().expect("the end was seen");
            assert_eq!(rows.len(), 3, "pieces of {size}");
            assert_eq!(rows[0], [Some(Bytes::from("Box")), Some(Bytes::from("{}"))]);
            assert_eq!(rows[1], [None, Some(Bytes::new())]);
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_or_no_copy_is_an_error() {
        let bytes = stream(&[&[Some(b"x")]]);
        let mut reader = CopyRows::default();
        reader.push(Bytes::copy_from_slice(&bytes[..bytes.len() - 1]));
        while reader.next_row().expect("well-formed so far").is_some() {}
        assert!(reader.finish().is_err());
        let mut reader = CopyRows::default();
        reader.push(Bytes::from_static(&[b'x'; 64]));
        assert!(reader.next_row().is_err());
    }
}
