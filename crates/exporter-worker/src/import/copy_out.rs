//! Writing rows of `COPY … FROM STDIN (FORMAT binary)` (PostgreSQL documentation, "COPY", section "Binary Format").

/// A stream of rows.
#[derive(Debug)]
pub(super) struct CopyBuffer(Vec<u8>);

impl CopyBuffer {
    /// Begins a stream.
    pub(super) fn new() -> Self {
        let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
        bytes.extend([0; 8]);
        Self(bytes)
    }

    /// Adds a row; `None` is NULL.
    ///
    /// Fields are bounded far below 2 GiB by the limits of what is read.
    pub(super) fn row(&mut self, fields: &[Option<&[u8]>]) {
        self.0.extend((fields.len() as i16).to_be_bytes());
        for field in fields {
            match field {
                None => self.0.extend((-1i32).to_be_bytes()),
                Some(bytes) => {
                    self.0.extend((bytes.len() as i32).to_be_bytes());
                    self.0.extend_from_slice(bytes);
                }
            }
        }
    }

    /// Ends the stream.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend((-1i16).to_be_bytes());
        self.0
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
