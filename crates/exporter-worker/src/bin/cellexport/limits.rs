//! Every limit and every wait of the command line, in one place. Sizes are bytes.

use std::time::Duration;

/// Making a connection, and the next piece of a request or an answer, unless told otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest such wait that can be asked for.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// How often a request is sent in all when it fails for a passing reason, unless told otherwise.
pub(crate) const TRIES: u32 = 6;
/// Most often that can be asked for.
pub(crate) const TRIES_MAX: u32 = 100;
/// First pause before a request is sent again; doubles each time.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause, whatever a server asks for.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a server is asked to hold its answer about a job when nobody watches.
pub(crate) const WAIT: Duration = Duration::from_secs(20);
/// The same when somebody watches: this often progress moves.
pub(crate) const WATCHED_WAIT: Duration = Duration::from_secs(1);
/// Pause between two looks at a job, with servers that hold no answer.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Pause between two lines of progress.
pub(crate) const LINE: Duration = Duration::from_secs(2);
/// Pause between two looks at the progress of work on this machine.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// An upload must be sent at this rate on the whole, in bytes per second: the services ask for no less.
pub(crate) const UPLOAD_RATE: u64 = 64 << 10;
/// A server writes what it was sent to its disk at this rate before it answers.
pub(crate) const DISK_RATE: u64 = 8 << 20;
/// A download must arrive at this rate on the whole.
pub(crate) const DOWNLOAD_RATE: u64 = 16 << 10;

/// A JSON answer: a hundred jobs, or a job with its faults.
pub(crate) const JSON_ANSWER: u64 = 8 << 20;
/// The body of an answer that tells of an error.
pub(crate) const ERROR_ANSWER: u64 = 64 << 10;
/// A listing of a snapshot area: a thousand files with their ACLs.
pub(crate) const LISTING: u64 = 64 << 20;
/// Files of one listing.
pub(crate) const FILES_LISTED: usize = 100_000;
/// Jobs shown, unless told otherwise.
pub(crate) const JOBS: u32 = 20;
/// Most jobs that can be asked for.
pub(crate) const JOBS_MAX: u32 = 1000;
/// Jobs of one answer.
pub(crate) const JOBS_PAGE: u32 = 100;
/// The configuration file, and a file with a token.
pub(crate) const SETTINGS_FILE: u64 = 64 << 10;
/// The note beside a part file.
pub(crate) const PART_NOTE: u64 = 1 << 10;
/// Characters of a server's text that are shown.
pub(crate) const SHOWN: usize = 2000;

/// Bytes copied at once.
pub(crate) const PIECE: usize = 256 << 10;
/// What is read of the end of a remote snapshot at first: the end of the archive, and a short directory with it.
pub(crate) const TAIL: u64 = 64 << 10;
/// What is read of a remote snapshot where nobody has read yet.
pub(crate) const BLOCK: u64 = 64 << 10;
/// What is read at once where reading goes on and on.
pub(crate) const BLOCK_MAX: u64 = 1 << 20;
/// Blocks of a remote snapshot that are remembered.
pub(crate) const BLOCKS: usize = 4;
/// What may be read of a remote snapshot beside the directory, or beside the entry.
pub(crate) const READ_BESIDE: u64 = 4 << 20;
/// How often a download begins anew because the file was replaced meanwhile.
pub(crate) const BEGINNINGS: u32 = 3;
