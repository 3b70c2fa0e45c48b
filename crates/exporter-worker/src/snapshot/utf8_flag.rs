//! Marks every entry name as UTF-8.
//!
//! The zip library sets the mark (general purpose bit 11, APPNOTE 4.4.4) only where a name is not ASCII. Readers that
//! take unmarked names for another encoding must not have to guess which entries belong together, so the mark is put
//! into the other headers too, before the file is proved.

use std::fs::File;
use std::os::unix::fs::FileExt;

use model::area::Part;
use zip::read::Config;
use zip::unstable::read::ZipIterable;

use crate::failure::Failure;

const UTF8: u8 = 0x08;
/// Second byte of the flags in a local header and in a central one.
const LOCAL: u64 = 7;
const CENTRAL: u64 = 9;

pub(super) fn set(part: &Part) -> Result<(), Failure> {
    let doing = "create snapshot file";
    let io = |e| Failure::io(doing, e);
    let reader = std::io::BufReader::new(part.reopen().map_err(io)?);
    let file = part.writer().map_err(io)?;
    // Reads one central header after the other: no index of all entries is built.
    let mut headers = ZipIterable::try_new(reader, Config::default()).map_err(|e| Failure::zip(doing, e))?;
    for entry in headers.files().map_err(|e| Failure::zip(doing, e))? {
        let entry = entry.map_err(|e| Failure::zip(doing, e))?;
        for at in [entry.header_start() + LOCAL, entry.central_header_start() + CENTRAL] {
            mark(&file, at).map_err(io)?;
        }
    }
    Ok(())
}

fn mark(file: &File, at: u64) -> std::io::Result<()> {
    let mut flags = [0];
    file.read_exact_at(&mut flags, at)?;
    if flags[0] & UTF8 == 0 {
        file.write_all_at(&[flags[0] | UTF8], at)?;
    }
    Ok(())
}
