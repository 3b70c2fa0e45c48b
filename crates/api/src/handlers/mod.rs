//! One module per thing a client can do. Handlers translate; decisions belong to the modules they call.

pub(crate) mod cells;
pub(crate) mod delete;
pub(crate) mod download;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod jobs;
mod orders;
pub(crate) mod propfind;
pub(crate) mod status;
pub(crate) mod upload;
