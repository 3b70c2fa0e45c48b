-- Jobs as clients see them: a history, progress that never falls, changes that are told, and requests that are sent twice.

ALTER TABLE job
  ADD COLUMN revision         bigint NOT NULL DEFAULT 1,
  ADD COLUMN share            double precision NOT NULL DEFAULT 0 CHECK (share >= 0 AND share <= 1),
  ADD COLUMN remaining        double precision CHECK (remaining >= 0),
  ADD COLUMN percent          smallint NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 99),
  ADD COLUMN attempt_at       timestamptz,
  ADD COLUMN heartbeat_at     timestamptz,
  ADD COLUMN idempotency_key  text CHECK (octet_length(idempotency_key) BETWEEN 1 AND 255),
  ADD COLUMN idempotency_body bytea CHECK (octet_length(idempotency_body) = 32),
  ADD CONSTRAINT job_idempotency_is_whole CHECK ((idempotency_key IS NULL) = (idempotency_body IS NULL));
COMMENT ON COLUMN job.revision IS '+1 whenever something changes that a client can see: the ETag of the job and the id of its events.';
COMMENT ON COLUMN job.share IS 'How much of its work the current attempt has done, 0 to 1.';
COMMENT ON COLUMN job.remaining IS 'Seconds that the current attempt still takes, as its worker foretold them at progress_at.';
COMMENT ON COLUMN job.percent IS 'The largest share of any attempt, in percent: what clients are shown never falls.';
COMMENT ON COLUMN job.attempt_at IS 'When the current attempt began.';
COMMENT ON COLUMN job.heartbeat_at IS 'The last sign of life of the current attempt.';
COMMENT ON COLUMN job.idempotency_key IS 'Idempotency-Key of the request, if it had one.';
COMMENT ON COLUMN job.idempotency_body IS 'SHA-256 of what that request asked for: the key with another body is a mistake.';
COMMENT ON COLUMN job.total_bytes IS 'Uncompressed bytes in the view of the current attempt, estimated while documents are written; NULL until counted.';

CREATE UNIQUE INDEX job_idempotency ON job (cell_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
COMMENT ON INDEX job_idempotency IS 'A key names one job of a cell: decides races between repeated requests.';
CREATE INDEX job_newest ON job (cell_id, accepted_at DESC, id DESC);
COMMENT ON INDEX job_newest IS 'The jobs of a cell, newest first, page by page.';

CREATE FUNCTION job_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.revision := OLD.revision + 1;
  PERFORM pg_notify('cellexport_job', NEW.id::text);
  RETURN NEW;
END $$;
COMMENT ON FUNCTION job_changed() IS 'Tells whoever waits for a job that it changed. Heard after the commit.';
CREATE TRIGGER job_changed BEFORE UPDATE ON job FOR EACH ROW
  WHEN ((OLD.state, OLD.attempt, OLD.cancel_requested, OLD.share, OLD.percent, OLD.done_documents, OLD.done_files, OLD.done_bytes)
        IS DISTINCT FROM
        (NEW.state, NEW.attempt, NEW.cancel_requested, NEW.share, NEW.percent, NEW.done_documents, NEW.done_files, NEW.done_bytes))
  EXECUTE FUNCTION job_changed();
COMMENT ON TRIGGER job_changed ON job IS 'Counts and tells the changes that clients can see.';
