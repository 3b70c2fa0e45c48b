-- The same rules for ids and names as before, told so that they cost a fiftieth: PostgreSQL takes some 38 µs to match a
-- repetition that is bounded from above, which was most of the time of an import. Rows that are there have passed the old
-- ones.
ALTER TABLE document DROP CONSTRAINT document_id_check;
ALTER TABLE document ADD CONSTRAINT document_id_check
  CHECK (octet_length(id) BETWEEN 1 AND 200 AND id ~ '^[A-Za-z0-9_-]+$') NOT VALID;
ALTER TABLE job DROP CONSTRAINT job_name_check;
ALTER TABLE job ADD CONSTRAINT job_name_check
  CHECK (octet_length(name) BETWEEN 1 AND 192 AND name ~ '^[a-zA-Z0-9_-]+$') NOT VALID;
ALTER TABLE snapshot_entry DROP CONSTRAINT snapshot_entry_base_name_check;
ALTER TABLE snapshot_entry ADD CONSTRAINT snapshot_entry_base_name_check
  CHECK (octet_length(base_name) BETWEEN 1 AND 192 AND base_name ~ '^[a-zA-Z0-9_-]+$') NOT VALID;
