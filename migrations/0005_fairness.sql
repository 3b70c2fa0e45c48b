-- Whose job it is and when it is its turn: an owner with a thousand jobs must not keep others waiting.

ALTER TABLE job
  ADD COLUMN owner text NOT NULL DEFAULT '',
  ADD COLUMN turn  bigint NOT NULL DEFAULT 0;
UPDATE job SET owner = coalesce((SELECT coalesce(c.owner, c.id) FROM cell c WHERE c.id = job.cell_id), cell_id);
COMMENT ON COLUMN job.owner IS 'Owner of the cell when the request was accepted; the cell itself when it has none. Limits and turns are by owner.';
COMMENT ON COLUMN job.turn IS 'Workers take the smallest first. A new job comes after its owner''s other jobs, and not before the one whose turn it is: owners take turns.';

CREATE INDEX job_turns ON job (turn, accepted_at) WHERE state = 'queued';
COMMENT ON INDEX job_turns IS 'What a polling worker looks for, and whose turn it is.';
CREATE INDEX job_owners ON job (owner, turn) WHERE state IN ('queued', 'running');
COMMENT ON INDEX job_owners IS 'An owner''s active jobs: how many, and the last of them.';
DROP INDEX job_claimable;
