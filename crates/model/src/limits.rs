//! Every limit and every wait of the services, in one place.
//!
//! Sizes are bytes unless the name says otherwise. What an operator may change is a setting whose default
//! stands here (see [`crate::settings`]).

use std::time::Duration;

/// A worker is taken for dead this long after its last heartbeat: five missed beats are tolerated.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often a worker renews its lease, at least.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often a worker that gets on reports progress, at most: what clients see move.
pub const PROGRESS: Duration = Duration::from_secs(1);
/// How often a worker looks whether its job was cancelled.
pub const CANCEL_LOOK: Duration = Duration::from_millis(500);
/// How often an idle slot looks for work by itself, so that a silent broker costs latency only.
pub const POLL: Duration = Duration::from_secs(5);
/// How often each process looks for leases that ran out.
pub const REAP: Duration = Duration::from_secs(10);
/// How often each process looks for queued jobs whose doorbell is due.
pub const RELAY: Duration = Duration::from_secs(2);
/// How often a worker looks for files that no row names.
pub const SWEEP: Duration = Duration::from_secs(3600);
/// Files younger than this are never swept.
pub const SWEEP_AGE: Duration = Duration::from_secs(3600);
/// How often a worker looks for snapshots that are too old or too many.
pub const EXPIRE: Duration = Duration::from_secs(600);
/// Reapings between two looks for generations that nobody names any more.
pub const REAPINGS_PER_DISCARD: u32 = 3;
/// Rows of a generation removed by one statement.
pub const DISCARD_ROWS: i64 = 20_000;
/// One such statement.
pub const DISCARD_STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);
/// Blobs without a row are swept after this, twice: longer than any load may take, and as long as any export may read
/// what has lost its row.
pub const SWEEP_BLOB_AGE: Duration = Duration::from_secs(24 * 3600);
/// An attempt whose counters stand still for this long is given up.
pub const STALL: Duration = Duration::from_secs(600);
/// A job is not tried after this.
pub const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// First back-off after a transient failure; doubles with each strike, with full jitter.
pub const BACKOFF: Duration = Duration::from_secs(5);
/// Longest back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// Pause between two attempts while the disk is full.
pub const DISK_FULL_PAUSE: Duration = Duration::from_secs(60);
/// How long a worker may go on with a running export after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(25);
/// How long an attempt that must stop may take to stop its threads.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// The same when a user waits for it: what is left of it ends behind the row's back, and is swept.
pub const CANCEL_GRACE: Duration = Duration::from_millis(500);

/// A control statement of a worker, or any statement of the api, is cut off by the server after this.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait for a row lock.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A transaction that does nothing for this long is ended by the server.
pub const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Reading one cell's documents.
pub const READ_STATEMENT_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Opening a connection to the database, or getting one from a pool. The api answers 503 within 2 s.
pub const DATABASE_CONNECT: Duration = Duration::from_millis(1500);
/// A pooled connection that was used within so long is used again unasked.
pub const CONNECTION_TRUSTED: Duration = Duration::from_millis(500);
/// Everything one request may wait for the database.
pub const DATABASE_ANSWER: Duration = Duration::from_millis(1900);
/// Opening a dedicated connection for an export.
pub const READ_CONNECT: Duration = Duration::from_secs(10);

/// Opening a connection to the broker.
pub const BROKER_CONNECT: Duration = Duration::from_secs(5);
/// A publish without its confirm counts as unknown after this.
pub const PUBLISH: Duration = Duration::from_secs(5);
/// Shortest and longest pause before a lost broker connection is opened again.
pub const BROKER_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Doorbells waiting in one process; what does not fit is rung by the relay.
pub const DOORBELL_BACKLOG: usize = 1024;
/// Jobs the relay takes at once, and jobs one reaping looks at.
pub const BATCH: i64 = 100;
/// A longer message is refused unread.
pub const MESSAGE_BYTES: usize = 1024;

/// Opening a blob.
pub const BLOB_OPEN: Duration = Duration::from_secs(10);
/// The next piece of a blob, or of a document stream.
pub const READ_STALL: Duration = Duration::from_secs(60);

/// Opening a connection to the service of a bucket.
pub const STORAGE_CONNECT: Duration = Duration::from_secs(5);
/// One request to it: a part of [`PART`] bytes or more at 64 KiB per second.
pub const STORAGE_REQUEST: Duration = Duration::from_secs(130);
/// A request that fails is tried again so often.
pub const STORAGE_RETRIES: usize = 6;
/// No try begins after this.
pub const STORAGE_RETRY: Duration = Duration::from_secs(180);
/// Longest pause between two of them.
pub const STORAGE_BACKOFF_MAX: Duration = Duration::from_secs(15);
/// How often a service looks whether its bucket answers.
pub const STORAGE_LOOK: Duration = Duration::from_secs(15);
/// Parts of one object (10 000 is what S3 takes), the last one aside.
pub const PARTS: u64 = 9_900;
/// Shortest part; longer ones are used where there would be too many. Shorter files are sent whole.
pub const PART: u64 = 8 << 20;
/// Parts of one file that are in memory at once, in bytes; one at least.
pub const PARTS_AT_ONCE: u64 = 16 << 20;
/// Files that one process sends at once.
pub const SENDING: usize = 2;
/// What is asked for at once of a long object.
pub const OBJECT_RANGE: u64 = 1 << 20;
/// Small objects that are asked for at once.
pub const SMALL_OBJECTS_AT_ONCE: usize = 32;
/// Blobs that are looked up in the database at once.
pub const BLOBS_AT_ONCE: usize = 1000;
/// Pages of abandoned uploads that one sweep looks at, with up to a thousand each.
pub const UPLOAD_PAGES: usize = 100;
/// Blocks of an object that is looked into, and how many are kept.
pub const BLOCK: u64 = 256 << 10;
/// See [`BLOCK`].
pub const BLOCKS: usize = 8;
/// A link to an object works for so long: long enough to be followed, and to go on after a break.
pub const LINK: Duration = Duration::from_secs(900);
/// How often a process tells on which host it runs, and for how long that counts.
pub const HOST_REPORT: Duration = Duration::from_secs(20);
/// See [`HOST_REPORT`].
pub const HOST_GONE: Duration = Duration::from_secs(90);

/// Rows that are copied into the database at once.
pub const COPY_BATCH: usize = 1 << 20;
/// Copying one of them.
pub const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Ids of user data that an import remembers, to know that targets stand before their users; 9 bytes each. With more, the
/// database finds it out.
pub const IDS_REMEMBERED: usize = 3_600_000;
/// References among user data that an import puts in order; with more, the order of the snapshot stays.
pub const REFERENCES_ORDERED: usize = 8_000_000;
/// Documents that are moved by one statement.
pub const MOVES: usize = 50_000;
/// Such batches that wait for the database.
pub const BATCHES_WAITING: usize = 4;
/// Bytes that are read, sent through a channel or written in one piece.
pub const PIECE: usize = 256 << 10;
/// Pieces between the reader of a cell and the writer of its snapshot, being compressed or waiting.
pub const PIECES_WAITING: usize = 8;
/// Pieces of a file that are read at once, the one that is wanted among them.
pub const PIECES_AHEAD: usize = 2;
/// Small entries that are packed together.
pub const SMALL_ENTRIES: usize = 192;
/// Finished bytes of a snapshot that are read back at once.
pub const STRETCH: u64 = 4 << 20;
/// Messages to the thread that reads a snapshot back.
pub const STRETCHES_WAITING: usize = 4;
/// Messages from that thread about bytes that need not stay in memory.
pub const STRETCHES_UNNEEDED: usize = 16;
/// What is compressed on trial, to see whether compressing long contents is worth while.
pub const SAMPLE: usize = 64 << 10;

/// Free space below which a snapshot area takes no new snapshot and a running one is given up.
pub const DISK_RESERVE: u64 = 1 << 30;
/// How much is written between two looks at the free space, and between two flushes to disk.
pub const FLUSH_BYTES: u64 = 16 << 20;
/// So much of a new snapshot may stay in the memory that the kernel lends to files, for whoever downloads it at once. The
/// rest leaves that to others, the database's files above all.
pub const KEPT_IN_CACHE: u64 = 1 << 30;

/// How often active jobs are counted for metrics, and recorded values are put in order.
pub const MEASURE: Duration = Duration::from_secs(5);
/// How often a service looks at what it depends on, for its internal port.
pub const LOOK: Duration = Duration::from_secs(1);
/// One such look.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Open connections to an internal port.
pub const INTERNAL_CONNECTIONS: usize = 64;

/// Finished spans that wait for the collector; what does not fit is dropped.
pub const SPANS_WAITING: usize = 2048;
/// Spans that are sent at once.
pub const SPANS_AT_ONCE: usize = 512;
/// How long a finished span waits for others to be sent with.
pub const SPANS_PAUSE: Duration = Duration::from_secs(1);
/// Sending spans. What the collector has not taken by then is dropped.
pub const SPANS_SEND: Duration = Duration::from_secs(5);
/// Sending what is left when the process ends.
pub const SPANS_END: Duration = Duration::from_secs(2);
/// What is read of a collector's answer.
pub const SPANS_ANSWER: u64 = 64 << 10;
/// Longest `tracestate` that is passed on.
pub const TRACE_STATE: usize = 512;
/// One look of the doctor.
pub const EXAMINED: Duration = Duration::from_secs(10);
/// All looks of the doctor together.
pub const EXAMINATION: Duration = Duration::from_secs(60);
/// What the doctor writes, reads back and removes.
pub const ROUND_TRIP: usize = 1 << 20;
/// Snapshots, and contents of files, whose presence the doctor looks at.
pub const SAMPLED: i64 = 100;
/// Clocks that differ by more are worth a word.
pub const CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);
/// A job that has been waiting for longer is worth a word.
pub const WAITS_LONG: Duration = Duration::from_secs(900);
/// Less free space beyond the reserve is worth a word.
pub const SPACE_LOW: u64 = 10_000_000_000;
/// Something that holds the rows of more transactions is worth a word.
pub const OLD_TRANSACTIONS: i32 = 10_000_000;
/// A question to the management interface of the broker.
pub const MANAGEMENT: Duration = Duration::from_secs(5);
/// Its answer.
pub const MANAGEMENT_ANSWER: u64 = 4 << 20;
/// Memory of a worker with one slot: its tested ceiling.
pub const WORKER_MEMORY: u64 = 96 << 20;
/// Memory of an api without clients that wait: its tested ceiling.
pub const API_MEMORY: u64 = 64 << 20;
/// Memory of a client that waits, in the api.
pub const WAITING_CLIENT_MEMORY: u64 = 50 << 10;
/// Files that a worker may have open for one job, connections included.
pub const OPEN_FILES_OF_JOB: u64 = 64;

/// Threads that answer requests.
pub const HTTP_THREADS: usize = 2;
/// Open connections of one of them.
pub const CONNECTIONS_PER_THREAD: usize = 2500;
/// The head of a request.
pub const REQUEST_HEAD: Duration = Duration::from_secs(5);
/// An idle connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that is asked to close its connection.
pub const DISCONNECT: Duration = Duration::from_secs(5);

/// Jobs that may wait, of all cells together.
pub const JOBS_QUEUED: i64 = 10_000;
/// How long an api goes by the number of waiting jobs that it has counted.
pub const COUNT_PERIOD: Duration = Duration::from_secs(1);
/// Active jobs of all cells of one owner.
pub const JOBS_OF_OWNER: i64 = 1000;
/// Roles of one account that are looked at.
pub const ROLES: i64 = 1000;
/// How long the api goes by what it has read of a cell's ACL, accounts and roles.
pub const DIRECTORY_CACHE: Duration = Duration::from_secs(5);
/// ACLs, and accounts, remembered for so long.
pub const DIRECTORY_ENTRIES: u64 = 10_000;
/// The value of an `Authorization` header or of a cookie.
pub const CREDENTIALS: usize = 32 << 10;
/// Life of a token that is minted on the command line.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Longest such life.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Memory that checking one password may take; Personium's own hashes take 16 MiB.
pub const PASSWORD_MEMORY: u64 = 64 << 20;
/// Passwords checked at once in one api process.
pub const PASSWORDS: usize = 1;
/// Wait for one of these.
pub const PASSWORD_WAIT: Duration = Duration::from_secs(2);
/// After a wrong password the next one of the account is looked at after this; doubles with each wrong one.
pub const PASSWORD_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
pub const PASSWORD_PAUSE_MAX: Duration = Duration::from_secs(64);
/// Accounts whose wrong passwords are remembered, and for how long after the last one.
pub const PASSWORD_FAILURES: (u64, Duration) = (10_000, Duration::from_secs(600));
/// A key set of an OpenID Connect issuer.
pub const KEY_SET: u64 = 256 << 10;
/// Fetching one.
pub const KEY_SET_FETCH: Duration = Duration::from_secs(5);
/// A key set is read again after this.
pub const KEY_SET_FRESH: Duration = Duration::from_secs(600);
/// Pause between two readings of a key set that could not be had, or that lacked a key.
pub const KEY_SET_PAUSE: Duration = Duration::from_secs(10);
/// A key set that cannot be had again is used for so long.
pub const KEY_SET_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How far the clock of an OpenID Connect issuer may be off.
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(60);

/// Snapshot files per cell.
pub const SNAPSHOTS_PER_CELL: i64 = 1024;
/// Length of an uploaded snapshot.
pub const UPLOAD: u64 = 20 << 30;
/// All snapshots of one cell together, checked by uploads.
pub const CELL_QUOTA: u64 = 100 << 30;
/// An upload may last this long.
pub const UPLOAD_TOTAL: Duration = Duration::from_secs(6 * 3600);
/// Over each such window an upload must have sent [`UPLOAD_WINDOW_BYTES`].
pub const UPLOAD_WINDOW: Duration = Duration::from_secs(30);
/// 64 KiB per second.
pub const UPLOAD_WINDOW_BYTES: u64 = 30 * (64 << 10);
/// Open files of an api: one for each connection and one that it downloads, and as many again for everything else.
pub const OPEN_FILES: u64 = 4 * (HTTP_THREADS * CONNECTIONS_PER_THREAD) as u64;
/// Connections to the database that requests find open.
pub const DATABASE_WARM: u32 = 4;
/// Longest wait that `Prefer: wait` gets.
pub const WAIT_LONGEST: Duration = Duration::from_secs(60);
/// Clients that wait for jobs in one process, and watch their events; more are answered at once.
pub const WAITING_CLIENTS: usize = 4000;
/// Pause before listening for changed jobs again, after it failed.
pub const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// How often jobs that are waited for are read although nothing was told.
pub const REFRESH: Duration = Duration::from_secs(15);
/// Jobs that are read in one statement.
pub const JOBS_AT_ONCE: usize = 500;
/// How long a stream of events says nothing, at most.
pub const EVENTS_PAUSE: Duration = Duration::from_secs(15);
/// Within this time a client has to take something of a stream of events.
pub const EVENTS_TAKEN: Duration = Duration::from_secs(60);
/// Jobs of one page of a list, unless asked for otherwise.
pub const JOBS_PER_PAGE: u8 = 20;
/// Active jobs that the command line lists.
pub const JOBS_LISTED: i64 = 1000;
/// Jobs of one page of a list, at most.
pub const JOBS_PER_PAGE_MAX: u8 = 100;
/// When to look again, in seconds, as an accepted request is told.
pub const LOOK_AGAIN: &str = "1";
/// Longest `Idempotency-Key`, in characters.
pub const IDEMPOTENCY_KEY: usize = 255;

/// Over each such window a download must be taken at [`DOWNLOAD_RATE`]. Long, since the kernel takes some mebibytes at
/// once on behalf of a slow client.
pub const DOWNLOAD_WINDOW: Duration = Duration::from_secs(120);
/// Bytes per second.
pub const DOWNLOAD_RATE: u64 = 16 << 10;
/// Answers up to this length fit into the kernel's buffers and cost nothing while a client does not take them.
pub const DOWNLOAD_UNWATCHED: u64 = 64 << 10;
/// Pieces of files that are longer than this are sent by the kernel; shorter ones are copied, without a trip to another thread.
pub const COPIED: u64 = 64 << 10;
/// What the kernel sends of a file in one go, before that is counted: a client that takes less in a window is too slow.
pub const SENT_AT_ONCE: u64 = 8 << 20;
/// Uploads of one api process at once.
pub const UPLOADS: usize = 64;
/// Looks at snapshot files before an import, at once in one api process.
pub const INSPECTIONS: usize = 2;
/// Wait for one of these, and for the look itself.
pub const INSPECTION: Duration = Duration::from_secs(20);
/// Cells listed in one answer.
pub const CELLS_LISTED: i64 = 10_000;
/// Cells listed when nobody says how many (Personium's default of `$top`).
pub const CELLS_LISTED_DEFAULT: i64 = 25;
/// JSON bodies of requests.
pub const JSON_BODY: usize = 4 << 10;
/// XML bodies of PROPFIND.
pub const XML_BODY: usize = 64 << 10;
/// Nesting of an XML body.
pub const XML_DEPTH: usize = 32;
/// Elements of an XML body.
pub const XML_ELEMENTS: usize = 1000;
/// The next piece of a request body.
pub const BODY_IDLE: Duration = Duration::from_secs(15);
/// A whole request body (JSON or XML).
pub const BODY_TOTAL: Duration = Duration::from_secs(30);
/// Ranges answered in one response; a request for more gets the whole file.
pub const RANGES: usize = 16;

/// Entries of a snapshot that is loaded.
pub const ENTRIES: u64 = 1_000_000;
/// Central directory of a snapshot that is loaded.
pub const CENTRAL_DIRECTORY: u64 = 256 << 20;
/// Extra fields of one entry: times, owner, sizes, a name and a comment in Unicode.
pub const EXTRA_FIELDS: usize = 8;
/// Length of an entry name.
pub const ENTRY_NAME: usize = 1024;
/// Names in an entry's path.
pub const ENTRY_SEGMENTS: usize = 64;
/// Length of one name in an entry's path, in bytes of UTF-8 (255 UTF-16 units can take three bytes each).
pub const ENTRY_SEGMENT: usize = 765;
/// Sum of all uncompressed contents of a snapshot that is loaded.
pub const UNCOMPRESSED_TOTAL: u64 = 100 << 30;
/// Uncompressed bytes per byte of the file, beyond [`UNCOMPRESSED_SLACK`].
pub const UNCOMPRESSED_FACTOR: u64 = 20;
/// See [`UNCOMPRESSED_FACTOR`].
pub const UNCOMPRESSED_SLACK: u64 = 1 << 30;
/// Uncompressed bytes per compressed byte of one entry, beyond [`RATIO_FREE`].
pub const RATIO: u64 = 200;
/// See [`RATIO`].
pub const RATIO_FREE: u64 = 10 << 20;
/// The manifest, the cell document and the integrity entry's siblings: small JSON documents.
pub const SMALL_JSON: u64 = 64 << 10;
/// One `.pmeta`.
pub const PMETA: u64 = 1 << 20;
/// One document.
pub const DOCUMENT: usize = 16 << 20;
/// Nesting of any JSON document.
pub const JSON_DEPTH: usize = 32;
/// The integrity entry: a record for each entry of the snapshot.
pub const INTEGRITY_ENTRY: u64 = 512 << 20;
/// Faults after which a dry run ends.
pub const FAULTS: u64 = 1_000_000;
/// Faults that a dry run lists; it counts the others.
pub const FAULTS_LISTED: usize = 200;
/// Characters of an entry's name in a fault.
pub const FAULT_NAME: usize = 150;
/// Characters of one fault, and of a value in it.
pub const FAULT_TEXT: usize = 300;
/// Characters of an error text in an error file.
pub const ERROR_TEXT: usize = 500;
