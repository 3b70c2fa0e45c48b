-- The cell store: the `postgres` source of cells.
-- One row per document, its text kept verbatim, so that an export copies rows and rebuilds nothing.

CREATE TABLE cell (
  id         text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
  name       text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,127}$'),
  owner      text,
  document   text NOT NULL CHECK (strpos(document, chr(10)) = 0 AND strpos(document, chr(13)) = 0),
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  cell IS 'One row per cell. Its documents, nodes and blobs name it by id.';
COMMENT ON COLUMN cell.id IS 'Internal id of the cell; also the id of its main box. Clients never see it.';
COMMENT ON COLUMN cell.name IS 'Name in the cell URL. Unique in the unit; compared case-sensitively.';
COMMENT ON COLUMN cell.owner IS 'URL of the unit user who owns the cell, as stored in the cell document; NULL = no owner.';
COMMENT ON COLUMN cell.document IS 'The cell document (10_odata/00_cell.json of a snapshot), verbatim, one line without its end.';
COMMENT ON CONSTRAINT cell_pkey ON cell IS 'One cell per id.';
COMMENT ON CONSTRAINT cell_name_key ON cell IS 'One cell per name: every request finds its cell here.';
COMMENT ON COLUMN cell.created_at IS 'When the row was made here; the cell''s own times are in its document.';

-- An enum sorts in the order of its labels: ORDER BY type is the order of the files in a snapshot.
CREATE TYPE document_type AS ENUM (
  'Box', 'Account', 'ExtCell', 'Role', 'Rule', 'Relation', 'SentMessage', 'ReceivedMessage', 'ExtRole',
  'EntityType', 'ComplexType', 'Property', 'ComplexTypeProperty', 'AssociationEnd', 'UserData', 'link');
COMMENT ON TYPE document_type IS 'Entity types in snapshot order; a reference points to an earlier type or, within one type, to an earlier position.';

CREATE SEQUENCE document_position;
COMMENT ON SEQUENCE document_position IS 'Places at the end of the export order.';
CREATE SEQUENCE document_front INCREMENT BY -1 MINVALUE -9223372036854775807 MAXVALUE -1 START WITH -1;
COMMENT ON SEQUENCE document_front IS 'Places at the front of the export order: each value is smaller than all before it.';

-- No foreign key to cell: a check for each of millions of rows would cost as much as the load itself.
-- Whoever deletes a cell deletes its documents and nodes in the same transaction.
CREATE TABLE document (
  cell_id  text NOT NULL,
  type     document_type NOT NULL,
  position bigint NOT NULL DEFAULT nextval('document_position'),
  id       text NOT NULL CHECK (id ~ '^[A-Za-z0-9_-]{1,200}$'),
  body     text COMPRESSION lz4 NOT NULL
             CHECK (octet_length(body) BETWEEN 2 AND 16777216 AND strpos(body, chr(10)) = 0 AND strpos(body, chr(13)) = 0),
  PRIMARY KEY (cell_id, type, id)
);
COMMENT ON TABLE  document IS 'The documents of all cells: one row is one line of a .pjson entry.';
COMMENT ON COLUMN document.cell_id IS 'The cell it belongs to (cell.id).';
COMMENT ON COLUMN document.type IS 'Entity type; decides the entry of the snapshot.';
COMMENT ON COLUMN document.position IS 'Order within the type. Kept so that the target of a to-one reference (ll) stands before its user: Personium''s importer loses references that point forward.';
COMMENT ON COLUMN document.id IS 'The _id of the document; k1-k2 for a link.';
COMMENT ON COLUMN document.body IS 'The whole line (_index, _type, _source, _id), verbatim, without its end; at most 16 MiB.';
COMMENT ON CONSTRAINT document_pkey ON document IS 'Reads and writes of one document; two documents of a type never share an id.';
-- Read by every export, in physical order when the cell was loaded in export order.
CREATE UNIQUE INDEX document_export_order ON document (cell_id, type, position);
COMMENT ON INDEX document_export_order IS 'The order in which an export reads a cell; unique, so that the order is total and two exports agree.';

CREATE TABLE blob (
  id         uuid PRIMARY KEY,
  cell_id    text NOT NULL,
  size       bigint NOT NULL CHECK (size >= 0),
  sha256     bytea NOT NULL CHECK (octet_length(sha256) = 32),
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  blob IS 'Write-once file contents; the bytes lie in the blob store under blobs/{first two digits}/{id}. New contents are a new blob.';
COMMENT ON COLUMN blob.id IS 'Random id; never used twice.';
COMMENT ON COLUMN blob.cell_id IS 'The cell whose file it is (cell.id).';
COMMENT ON COLUMN blob.size IS 'Length in bytes.';
COMMENT ON COLUMN blob.sha256 IS 'SHA-256 of the bytes; an export proves what it wrote against it.';
COMMENT ON CONSTRAINT blob_pkey ON blob IS 'Nodes name blobs by id.';
COMMENT ON COLUMN blob.created_at IS 'When the contents were stored.';
CREATE INDEX blob_cell ON blob (cell_id);
COMMENT ON INDEX blob_cell IS 'All blobs of a cell, for its deletion.';

CREATE TABLE node (
  cell_id text NOT NULL,
  path    text NOT NULL CHECK (octet_length(path) <= 1024),
  pmeta   text CHECK (octet_length(pmeta) <= 1048576),
  blob_id uuid REFERENCES blob (id),
  PRIMARY KEY (cell_id, path),
  CHECK (pmeta IS NOT NULL OR blob_id IS NOT NULL)
);
COMMENT ON TABLE  node IS 'The file tree of all cells (20_webdav of a snapshot).';
COMMENT ON COLUMN node.cell_id IS 'The cell it belongs to (cell.id).';
COMMENT ON COLUMN node.path IS 'Path below the cell, "/" between names, empty for the cell root; the main box is "__", another box its id.';
COMMENT ON COLUMN node.pmeta IS 'The node''s .pmeta, verbatim. NULL for a plain file that a unit left in the tree (import.error, tmp).';
COMMENT ON COLUMN node.blob_id IS 'Contents of a file; NULL for collections.';
COMMENT ON CONSTRAINT node_pkey ON node IS 'One node per path.';
-- A name holds no control characters, so \x01 as separator sorts a collection's whole subtree right behind it.
CREATE INDEX node_tree_order ON node (cell_id, (replace(path, '/', chr(1)) COLLATE "C"));
COMMENT ON INDEX node_tree_order IS 'Depth-first order, the order of an export.';

-- The ids a document points to with `ll` ("EntityTypeId:UserDataId").
CREATE FUNCTION document_targets(p_body text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
  SELECT split_part(t, ':', 2)
  FROM json_array_elements_text(
    CASE WHEN json_typeof(p_body::json #> '{_source,ll}') = 'array' THEN p_body::json #> '{_source,ll}' ELSE '[]' END) t
$$;
COMMENT ON FUNCTION document_targets(text) IS 'Ids of the user data that a document refers to.';

-- Moves the targets that stand behind document p_id, and what they refer to in turn, to the front of the type.
-- A depth-first walk with its own stack: targets are placed before their users, a cycle is cut where it closes.
-- Bounded: beyond 10000 documents the order stays as it is; nothing but Personium's importer depends on it.
CREATE FUNCTION document_targets_first(p_cell text, p_id text) RETURNS integer LANGUAGE plpgsql AS $$
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
    WHERE u.cell_id = p_cell AND u.type = 'UserData' AND u.id = top
      AND t.cell_id = p_cell AND t.type = 'UserData' AND t.id = target.id
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
  WHERE d.cell_id = p_cell AND d.type = 'UserData' AND d.id = moved.id;
  RETURN cardinality(placed);
END $$;
COMMENT ON FUNCTION document_targets_first(text, text) IS 'Restores "targets before users" for one document; returns how many documents it moved.';

CREATE FUNCTION document_keep_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM document_targets_first(NEW.cell_id, NEW.id);
  RETURN NULL;
END $$;
COMMENT ON FUNCTION document_keep_order() IS 'Trigger body of document_keep_order.';

-- Deferred: at commit a document and its target are both there, whichever was written first.
-- A load repairs the order itself, once and for all rows together, and says so with cellexport.loading.
CREATE CONSTRAINT TRIGGER document_keep_order AFTER INSERT OR UPDATE OF body ON document
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.type = 'UserData' AND current_setting('cellexport.loading', true) IS DISTINCT FROM 'on'
        AND NEW.body ~ '"ll"\s*:\s*\[\s*"')
  EXECUTE FUNCTION document_keep_order();
COMMENT ON TRIGGER document_keep_order ON document IS 'Keeps document.position right for writers other than a load.';
