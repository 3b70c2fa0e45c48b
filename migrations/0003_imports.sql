-- Imports, dry runs, uploads. The services must be stopped while this one runs: it renames columns.

-- What a cell holds is written once under a generation and then named by the cell: an import fills a new generation,
-- and one short transaction makes the cell name it. Whoever reads a cell finds the old contents or the new ones.
ALTER TABLE cell ADD COLUMN generation text UNIQUE CHECK (generation ~ '^[A-Za-z0-9_-]{1,64}$');
UPDATE cell SET generation = id;
ALTER TABLE cell ALTER COLUMN generation SET NOT NULL;
COMMENT ON COLUMN cell.generation IS 'Under this name its documents, nodes and blobs are stored. A writer reads it in the transaction in which it writes, FOR SHARE: an import replaces it.';
COMMENT ON CONSTRAINT cell_generation_key ON cell IS 'No two cells share their contents; asked for every generation that may be garbage.';
COMMENT ON TABLE cell IS 'One row per cell. Its documents, nodes and blobs carry its generation.';

CREATE FUNCTION cell_first_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.generation := coalesce(NEW.generation, NEW.id);
  RETURN NEW;
END $$;
COMMENT ON FUNCTION cell_first_generation() IS 'Trigger body of cell_first_generation.';
CREATE TRIGGER cell_first_generation BEFORE INSERT ON cell FOR EACH ROW EXECUTE FUNCTION cell_first_generation();
COMMENT ON TRIGGER cell_first_generation ON cell IS 'The first generation of a cell is named like the cell, unless somebody says otherwise.';

ALTER TABLE document RENAME COLUMN cell_id TO generation;
ALTER TABLE node     RENAME COLUMN cell_id TO generation;
ALTER TABLE blob     RENAME COLUMN cell_id TO generation;
DROP INDEX blob_cell;
CREATE INDEX blob_generation ON blob (generation, id);
COMMENT ON COLUMN document.generation IS 'The generation it belongs to (cell.generation).';
COMMENT ON COLUMN node.generation IS 'The generation it belongs to (cell.generation).';
COMMENT ON COLUMN blob.generation IS 'The generation whose file it is (cell.generation).';
COMMENT ON INDEX blob_generation IS 'All blobs of a generation in order, for its removal step by step.';
-- Removing a generation removes its blobs: each asks whether a node still names it.
CREATE INDEX node_blob ON node (blob_id) WHERE blob_id IS NOT NULL;
COMMENT ON INDEX node_blob IS 'Asked by the foreign key whenever a blob is removed.';

CREATE TABLE generation (
  id         text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
  job_id     uuid,
  attempt    integer,
  retired    boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK ((job_id IS NULL) = (attempt IS NULL))
);
COMMENT ON TABLE  generation IS 'Generations that are being filled or may have to be removed. Written before the first row of a generation, removed after its last. A cell''s first generation need not be here.';
COMMENT ON COLUMN generation.id IS 'The generation.';
COMMENT ON COLUMN generation.job_id IS 'The import that fills it; NULL for a load from the command line.';
COMMENT ON COLUMN generation.attempt IS 'The attempt that fills it: no other ever will.';
COMMENT ON COLUMN generation.retired IS 'Nobody will name it any more: replaced by an import, deleted with its cell, or given up.';
COMMENT ON COLUMN generation.created_at IS 'When it was begun; a load that was killed is given up after a day.';
COMMENT ON CONSTRAINT generation_pkey ON generation IS 'A generation is filled once.';

-- A text may hold \u0000, which no function of the json type can read. The replacement keeps the text JSON: what
-- looks like one behind another backslash becomes another character too, in a copy that is only searched.
CREATE FUNCTION document_json(p_body text) RETURNS json LANGUAGE sql IMMUTABLE AS $$
  SELECT replace(p_body, '\u0000', '\u0001')::json
$$;
COMMENT ON FUNCTION document_json(text) IS 'The document as json, for looking into it.';

CREATE OR REPLACE FUNCTION document_targets(p_body text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
  SELECT split_part(t, ':', 2)
  FROM (SELECT document_json(p_body) #> '{_source,ll}') AS d (ll),
       json_array_elements_text(CASE WHEN json_typeof(d.ll) = 'array' THEN d.ll ELSE '[]' END) t
$$;

DROP FUNCTION document_targets_first(text, text);
-- Moves the targets that stand behind document p_id, and what they refer to in turn, to the front of the type.
-- A depth-first walk with its own stack: targets are placed before their users, a cycle is cut where it closes.
-- Bounded: beyond 10000 documents the order stays as it is; nothing but Personium's importer depends on it.
CREATE FUNCTION document_targets_first(p_generation text, p_id text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  stack  text[] := ARRAY[p_id];
  opened text[] := '{}';
  placed text[] := '{}';
  top    text;
  found_targets text[];
BEGIN
  WHILE cardinality(stack) > 0 LOOP
    IF cardinality(opened) > 10000 THEN RETURN 0; END IF;
    top := stack[cardinality(stack)];
    IF top = ANY (opened) THEN
      stack := trim_array(stack, 1);
      IF top <> p_id AND NOT top = ANY (placed) THEN placed := placed || top; END IF;
      CONTINUE;
    END IF;
    opened := opened || top;
    SELECT array_agg(DISTINCT t.id) INTO found_targets
    FROM document u, document_targets(u.body) AS target(id), document t
    WHERE u.generation = p_generation AND u.type = 'UserData' AND u.id = top
      AND t.generation = p_generation AND t.type = 'UserData' AND t.id = target.id
      AND (top <> p_id OR t.position > u.position)   -- what already stands before p_id stays
      AND NOT t.id = ANY (opened);
    stack := stack || coalesce(found_targets, '{}');
  END LOOP;
  -- Drawn once: a join may read its input again for every row, and nextval would answer anew each time.
  WITH moved AS MATERIALIZED (
    SELECT id, nextval('document_front') AS position
    FROM (SELECT id FROM unnest(placed) WITH ORDINALITY AS o (id, n) ORDER BY n DESC) last_first)
  UPDATE document d SET position = moved.position
  FROM moved
  WHERE d.generation = p_generation AND d.type = 'UserData' AND d.id = moved.id;
  RETURN cardinality(placed);
END $$;
COMMENT ON FUNCTION document_targets_first(text, text) IS 'Restores "targets before users" for one document of a generation; returns how many documents it moved.';

CREATE OR REPLACE FUNCTION document_keep_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM document_targets_first(NEW.generation, NEW.id);
  RETURN NULL;
END $$;

-- Imports and dry runs are jobs like exports.
ALTER TABLE job
  ADD COLUMN kind text NOT NULL DEFAULT 'export' CHECK (kind IN ('export', 'import', 'dry-run')),
  ADD COLUMN source_key text,
  ADD COLUMN source_ours boolean NOT NULL DEFAULT false,
  ADD COLUMN result text CHECK (result IS NULL OR json_typeof(result::json) = 'object'),
  DROP CONSTRAINT job_blob_when_succeeded,
  ADD CONSTRAINT job_blob_when_exported CHECK ((state = 'succeeded' AND kind = 'export') = (blob_key IS NOT NULL)),
  ADD CONSTRAINT job_result_when_imported CHECK ((state = 'succeeded' AND kind <> 'export') = (result IS NOT NULL)),
  ADD CONSTRAINT job_source_of_imports CHECK ((kind <> 'export') = (source_key IS NOT NULL));
COMMENT ON TABLE  job IS 'One accepted export, import or dry run. The row is the truth and the outbox: the message only says "look".';
COMMENT ON COLUMN job.cell_id IS 'The cell to export or to import into (cell.id). No foreign key: a job outlives a deleted cell until it is final.';
COMMENT ON COLUMN job.kind IS 'export: cell to snapshot. import: snapshot to cell. dry-run: what an import would do.';
COMMENT ON COLUMN job.source_key IS 'The snapshot file that is imported: the one that had the name when the request was accepted.';
COMMENT ON COLUMN job.source_ours IS 'An export of this installation wrote that file: it cannot be a bomb.';
COMMENT ON COLUMN job.result IS 'What an import did, or what a dry run found.';
CREATE INDEX job_imports ON job (cell_id, kind, accepted_at DESC) WHERE kind <> 'export';
COMMENT ON INDEX job_imports IS 'The last import of a cell: its status stays readable after its end.';
COMMENT ON COLUMN snapshot_entry.job_id IS 'The export that made it; NULL when a client uploaded it.';

CREATE OR REPLACE FUNCTION job_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state IN ('succeeded', 'failed', 'cancelled')
     AND (NEW.state, NEW.attempt, NEW.blob_key, NEW.blob_size, NEW.blob_sha256, NEW.error, NEW.result, NEW.finished_at)
         IS DISTINCT FROM (OLD.state, OLD.attempt, OLD.blob_key, OLD.blob_size, OLD.blob_sha256, OLD.error, OLD.result, OLD.finished_at) THEN
    RAISE EXCEPTION 'job %: % is final', OLD.id, OLD.state USING ERRCODE = '23514', CONSTRAINT = 'job_final_is_final';
  END IF;
  IF (NEW.kind, NEW.cell_id, NEW.name, NEW.source_key) IS DISTINCT FROM (OLD.kind, OLD.cell_id, OLD.name, OLD.source_key) THEN
    RAISE EXCEPTION 'job %: an order never changes', OLD.id USING ERRCODE = '23514', CONSTRAINT = 'job_order_is_fixed';
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

-- Uploads keep the media type the client gave.
ALTER TABLE snapshot_entry ADD COLUMN content_type text CHECK (octet_length(content_type) <= 255 AND content_type ~ '^[ -~]+$');
COMMENT ON COLUMN snapshot_entry.content_type IS 'Media type that an upload came with; NULL when it came with none, and for files that a job made: their kind says it.';
