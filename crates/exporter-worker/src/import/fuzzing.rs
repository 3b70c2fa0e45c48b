//! For the fuzz targets: a snapshot goes through everything that reads it, into a sink that stores nothing.

use std::fs::File;
use std::io::Read;

use uuid::Uuid;

use super::document::Checked;
use super::error::{Faults, ImportError};
use super::metered::Metered;
use super::reading::Summary;
use super::sink::{Content, Sink};
use super::{Import, NewCell, Origin, open, reading};
use crate::control::Control;

/// Reads a file of anybody's to its end, as an import does or as a dry run does.
///
/// # Errors
/// [`ImportError`], as an import's.
pub fn read(file: File, dry_run: bool) -> Result<Summary, ImportError> {
    let control = Control::default();
    let mut faults = if dry_run { Faults::going_on() } else { Faults::ending_with_the_first() };
    let import = Import { file, origin: Origin::Anybody, cell: NewCell::default() };
    let (archive, identity) = open(import, &control, &mut faults)?;
    let summary = reading::read(archive, &identity, &control, &mut faults, &mut Nowhere)?;
    assert!(dry_run || faults.count == 0, "an import goes on after a fault");
    Ok(summary)
}

struct Nowhere;

impl Sink for Nowhere {
    fn content(&mut self, entry: &mut Metered<'_, impl Read>) -> Result<Content, ImportError> {
        let mut piece = vec![0; 64 << 10];
        while entry.piece(&mut piece)? > 0 {}
        Ok(Content { id: Uuid::nil(), size: entry.size(), sha256: [0; 32] })
    }

    fn node(&mut self, path: &str, _: Option<&str>, _: Option<&Content>) -> Result<(), ImportError> {
        assert!(!path.starts_with('/') && path.split('/').all(|name| !matches!(name, "." | "..")), "{path:?}");
        Ok(())
    }

    fn document(&mut self, document: &Checked<'_>) -> Result<(), ImportError> {
        assert!(!document.body.contains(['\n', '\r']), "a document of several lines");
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImportError> {
        Ok(())
    }
}
