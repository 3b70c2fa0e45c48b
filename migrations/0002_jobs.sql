-- Jobs and the snapshot area's index. The statements that move a job are in crates/model/src/store/jobs.rs;
-- the constraints and the guard trigger below hold whatever those statements do.

CREATE TYPE job_state AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled');
COMMENT ON TYPE job_state IS 'queued: waits for a worker (also between attempts). running: a worker holds the lease. The other three are final.';

-- Every time in this table is the database's clock: no process ever sends one.
CREATE TABLE job (
  id               uuid PRIMARY KEY,
  cell_id          text NOT NULL,
  name             text NOT NULL CHECK (name ~ '^[a-zA-Z0-9_-]{1,192}$'),
  state            job_state NOT NULL DEFAULT 'queued',
  attempt          integer NOT NULL DEFAULT 0,
  strikes          integer NOT NULL DEFAULT 0,
  max_strikes      integer NOT NULL DEFAULT 4 CHECK (max_strikes > 0),
  available_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  deadline_at      timestamptz NOT NULL DEFAULT clock_timestamp() + interval '24 hours',
  dispatch_at      timestamptz NOT NULL DEFAULT clock_timestamp() + interval '2 seconds',
  dispatches       integer NOT NULL DEFAULT 0,
  lease_owner      text,
  lease_until      timestamptz,
  cancel_requested boolean NOT NULL DEFAULT false,
  done_documents   bigint NOT NULL DEFAULT 0,
  total_documents  bigint,
  done_files       bigint NOT NULL DEFAULT 0,
  total_files      bigint,
  done_bytes       bigint NOT NULL DEFAULT 0,
  total_bytes      bigint,
  progress_at      timestamptz,
  accepted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at       timestamptz,
  finished_at      timestamptz,
  blob_key         text,
  blob_size        bigint,
  blob_sha256      bytea CHECK (octet_length(blob_sha256) = 32),
  error            text CHECK (error IS NULL OR json_typeof(error::json) = 'object'),
  last_failure     text CHECK (last_failure IS NULL OR json_typeof(last_failure::json) = 'object'),
  CONSTRAINT job_lease_while_running CHECK ((state = 'running') = (lease_until IS NOT NULL) AND (state = 'running') = (lease_owner IS NOT NULL)),
  CONSTRAINT job_blob_when_succeeded CHECK ((state = 'succeeded') = (blob_key IS NOT NULL)),
  CONSTRAINT job_blob_is_whole CHECK ((blob_key IS NULL) = (blob_size IS NULL) AND (blob_key IS NULL) = (blob_sha256 IS NULL)),
  CONSTRAINT job_error_when_failed CHECK ((state IN ('failed', 'cancelled')) = (error IS NOT NULL)),
  CONSTRAINT job_finished_when_final CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
);
COMMENT ON TABLE  job IS 'One accepted export. The row is the truth and the outbox: the message only says "look".';
COMMENT ON COLUMN job.id IS 'Random id; the only thing a message carries.';
COMMENT ON COLUMN job.cell_id IS 'The cell to export (cell.id). No foreign key: a job outlives a deleted cell until it is final.';
COMMENT ON COLUMN job.name IS 'Snapshot name without extension.';
COMMENT ON COLUMN job.state IS 'See job_state.';
COMMENT ON COLUMN job.attempt IS 'Fencing number: +1 at every claim, never taken back. With lease_owner it is the fence of every later statement.';
COMMENT ON COLUMN job.strikes IS 'Lost leases and failed attempts that count against max_strikes.';
COMMENT ON COLUMN job.max_strikes IS 'Strikes at which the job fails for good.';
COMMENT ON COLUMN job.available_at IS 'Not to be claimed before (back-off).';
COMMENT ON COLUMN job.deadline_at IS 'Not to be tried after.';
COMMENT ON COLUMN job.dispatch_at IS 'When the relay rings for it next; starts 2 s late because the api rings itself.';
COMMENT ON COLUMN job.dispatches IS 'How often the relay rang since the job was queued.';
COMMENT ON COLUMN job.lease_owner IS 'Random token of the claim; new at every claim.';
COMMENT ON COLUMN job.lease_until IS 'The worker is taken for dead after this.';
COMMENT ON COLUMN job.cancel_requested IS 'Set while running; the job can no longer succeed.';
COMMENT ON COLUMN job.done_documents IS 'Documents written by the current attempt.';
COMMENT ON COLUMN job.total_documents IS 'Documents in the view of the current attempt; NULL until counted.';
COMMENT ON COLUMN job.done_files IS 'File contents written by the current attempt.';
COMMENT ON COLUMN job.total_files IS 'File contents in the view of the current attempt; NULL until counted.';
COMMENT ON COLUMN job.done_bytes IS 'Uncompressed bytes written by the current attempt.';
COMMENT ON COLUMN job.total_bytes IS 'Bytes of file contents in the view of the current attempt; NULL until counted.';
COMMENT ON COLUMN job.progress_at IS 'When one of the done counters last grew.';
COMMENT ON COLUMN job.accepted_at IS 'When the request was accepted.';
COMMENT ON COLUMN job.started_at IS 'When the first attempt began.';
COMMENT ON COLUMN job.finished_at IS 'When the job became final.';
COMMENT ON COLUMN job.blob_key IS 'Key of the finished zip in the snapshot area.';
COMMENT ON COLUMN job.blob_size IS 'Its length in bytes.';
COMMENT ON COLUMN job.blob_sha256 IS 'Its SHA-256.';
COMMENT ON COLUMN job.error IS 'Why it failed: the text of NAME.error.';
COMMENT ON COLUMN job.last_failure IS 'Why the last attempt failed, in the form of error; becomes error when the budget is used up.';
COMMENT ON CONSTRAINT job_pkey ON job IS 'Messages and entries name jobs by id.';
CREATE UNIQUE INDEX job_one_active_per_cell ON job (cell_id) WHERE state IN ('queued', 'running');
COMMENT ON INDEX job_one_active_per_cell IS 'At most one active job per cell: decides races between requests.';
CREATE INDEX job_claimable ON job (available_at, accepted_at) WHERE state = 'queued';
COMMENT ON INDEX job_claimable IS 'What a polling worker looks for.';
CREATE INDEX job_dispatch ON job (dispatch_at) WHERE state = 'queued';
COMMENT ON INDEX job_dispatch IS 'What the relay looks for.';
CREATE INDEX job_leases ON job (lease_until) WHERE state = 'running';
COMMENT ON INDEX job_leases IS 'What the reaper looks for: running jobs.';
CREATE INDEX job_deadlines ON job (deadline_at) WHERE state = 'queued';
COMMENT ON INDEX job_deadlines IS 'What the reaper looks for: queued jobs past their deadline.';

-- What clients see. One row per base name: NAME.zip and NAME.error can never both exist.
CREATE TABLE snapshot_entry (
  cell_id     text NOT NULL,
  base_name   text NOT NULL CHECK (base_name ~ '^[a-zA-Z0-9_-]{1,192}$'),
  kind        text NOT NULL CHECK (kind IN ('pending', 'zip', 'error')),
  job_id      uuid UNIQUE REFERENCES job (id),
  version     integer NOT NULL DEFAULT 1 CHECK (version > 0),
  blob_key    text,
  size        bigint CHECK (size >= 0),
  sha256      bytea CHECK (octet_length(sha256) = 32),
  body        text,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  modified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (cell_id, base_name),
  CONSTRAINT snapshot_entry_zip_has_blob CHECK ((kind = 'zip') = (blob_key IS NOT NULL AND size IS NOT NULL AND sha256 IS NOT NULL)),
  CONSTRAINT snapshot_entry_error_has_body CHECK ((kind = 'error') = (body IS NOT NULL))
);
COMMENT ON TABLE  snapshot_entry IS 'The index of the snapshot area: listing and download read this, never a directory.';
COMMENT ON COLUMN snapshot_entry.cell_id IS 'The cell it belongs to (cell.id).';
COMMENT ON COLUMN snapshot_entry.base_name IS 'Name without extension.';
COMMENT ON COLUMN snapshot_entry.kind IS 'pending: reserved by an active job, invisible. zip: NAME.zip. error: NAME.error.';
COMMENT ON COLUMN snapshot_entry.job_id IS 'The job that made it.';
COMMENT ON COLUMN snapshot_entry.version IS 'First half of the ETag; +1 at every save of the same file.';
COMMENT ON COLUMN snapshot_entry.blob_key IS 'Where the zip lies in the snapshot area; immutable, complete before this row names it.';
COMMENT ON COLUMN snapshot_entry.size IS 'Length of the zip in bytes.';
COMMENT ON COLUMN snapshot_entry.sha256 IS 'SHA-256 of the zip.';
COMMENT ON COLUMN snapshot_entry.body IS 'The error document: it needs no space outside the database.';
COMMENT ON COLUMN snapshot_entry.created_at IS 'When the file appeared.';
COMMENT ON COLUMN snapshot_entry.modified_at IS 'When it was last saved; milliseconds are the second half of the ETag.';
COMMENT ON CONSTRAINT snapshot_entry_job_id_key ON snapshot_entry IS 'One file per job.';
COMMENT ON CONSTRAINT snapshot_entry_pkey ON snapshot_entry IS 'One name, one file: decides races for a name.';
CREATE INDEX snapshot_entry_blob ON snapshot_entry (blob_key) WHERE blob_key IS NOT NULL;
COMMENT ON INDEX snapshot_entry_blob IS 'Asked by the sweeper for every file it finds.';

-- Last line of defence: a fault in any binary cannot change a finished job or take an attempt number back.
CREATE FUNCTION job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state IN ('succeeded', 'failed', 'cancelled')
     AND (NEW.state, NEW.attempt, NEW.blob_key, NEW.blob_size, NEW.blob_sha256, NEW.error, NEW.finished_at)
         IS DISTINCT FROM (OLD.state, OLD.attempt, OLD.blob_key, OLD.blob_size, OLD.blob_sha256, OLD.error, OLD.finished_at) THEN
    RAISE EXCEPTION 'job %: % is final', OLD.id, OLD.state USING ERRCODE = '23514', CONSTRAINT = 'job_final_is_final';
  END IF;
  IF NEW.attempt < OLD.attempt OR NEW.attempt > OLD.attempt + 1 THEN
    RAISE EXCEPTION 'job %: attempt % -> %', OLD.id, OLD.attempt, NEW.attempt USING ERRCODE = '23514', CONSTRAINT = 'job_attempt_only_grows';
  END IF;
  IF OLD.state = 'queued' AND NEW.state = 'running' AND NEW.attempt <> OLD.attempt + 1 THEN
    RAISE EXCEPTION 'job %: claimed without a new attempt', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'job_claim_is_an_attempt';
  END IF;
  IF OLD.state = 'queued' AND NEW.state = 'succeeded' THEN
    RAISE EXCEPTION 'job %: succeeded without running', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'job_success_needs_a_run';
  END IF;
  IF OLD.cancel_requested AND NEW.state = 'succeeded' AND OLD.state <> 'succeeded' THEN
    RAISE EXCEPTION 'job %: succeeded after a cancel request', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'job_cancel_wins';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION job_guard() IS 'Trigger body of job_guard.';
CREATE TRIGGER job_guard BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION job_guard();
COMMENT ON TRIGGER job_guard ON job IS 'Final states never change, attempts only grow, a cancelled job never succeeds.';
