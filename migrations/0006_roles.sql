-- Roles of the database: each part of the services may do what it needs, and no more. They cannot log in; the users
-- that the services log in as are members (api: cellexport_api; workers: cellexport_worker). Whoever runs this
-- migration has to be allowed to make roles, or finds them made.
--
-- cellexport_data   owns the contents of cells. Owners are not held by the policies below, so that members can COPY.
-- cellexport_reader reads the contents of one cell, and nothing else: an export becomes this role while it reads.
-- cellexport_worker moves jobs, shows snapshots, replaces contents; a member of the two above.
-- cellexport_api    accepts jobs, keeps the area; of a cell's contents it knows the directory, through functions.
DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['cellexport_data', 'cellexport_reader', 'cellexport_worker', 'cellexport_api'] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL; -- Roles belong to the server: the migration of another database made it just now.
    END;
  END LOOP;
  IF NOT pg_has_role('cellexport_worker', 'cellexport_data', 'USAGE') THEN
    GRANT cellexport_data TO cellexport_worker;
  END IF;
  IF NOT pg_has_role('cellexport_worker', 'cellexport_reader', 'USAGE') THEN
    GRANT cellexport_reader TO cellexport_worker;
  END IF;
  -- Whoever owns the schema gives tables away, and may run every service as itself.
  FOREACH wanted IN ARRAY ARRAY['cellexport_data', 'cellexport_reader'] LOOP
    IF NOT pg_has_role(current_user, wanted, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
    END IF;
  END LOOP;
END $$;

DO $$
BEGIN
  -- Owning a table takes the right to make one in its schema; nobody logs in with it.
  EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO cellexport_data', current_schema());
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO cellexport_reader, cellexport_worker, cellexport_api', current_schema());
END $$;
ALTER TABLE document OWNER TO cellexport_data;
ALTER TABLE node     OWNER TO cellexport_data;
ALTER TABLE blob     OWNER TO cellexport_data;
DO $$
BEGIN
  EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM cellexport_data', current_schema());
END $$;

-- What an export reads: the cell and the generation that it has set, whatever its statements say.
ALTER TABLE cell     ENABLE ROW LEVEL SECURITY;
ALTER TABLE document ENABLE ROW LEVEL SECURITY;
ALTER TABLE node     ENABLE ROW LEVEL SECURITY;
ALTER TABLE blob     ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader_cell ON cell FOR SELECT TO cellexport_reader
  USING (id = (SELECT current_setting('cellexport.cell', true)));
CREATE POLICY reader_documents ON document FOR SELECT TO cellexport_reader
  USING (generation = (SELECT current_setting('cellexport.generation', true)));
CREATE POLICY reader_nodes ON node FOR SELECT TO cellexport_reader
  USING (generation = (SELECT current_setting('cellexport.generation', true)));
CREATE POLICY reader_blobs ON blob FOR SELECT TO cellexport_reader
  USING (generation = (SELECT current_setting('cellexport.generation', true)));
COMMENT ON POLICY reader_cell ON cell IS 'An export sees the one cell that it reads.';
COMMENT ON POLICY reader_documents ON document IS 'An export sees the contents that it reads.';
COMMENT ON POLICY reader_nodes ON node IS 'An export sees the tree that it reads.';
COMMENT ON POLICY reader_blobs ON blob IS 'An export sees the blobs that it reads.';
GRANT SELECT ON cell, document, node, blob TO cellexport_reader;

CREATE POLICY services_cell ON cell TO cellexport_api, cellexport_worker USING (true) WITH CHECK (true);
COMMENT ON POLICY services_cell ON cell IS 'Both services find every cell by its name.';

-- The api. A new cell gets its root; nothing else of contents is written here.
CREATE POLICY api_new_root ON node FOR INSERT TO cellexport_api WITH CHECK (path = '' AND blob_id IS NULL);
COMMENT ON POLICY api_new_root ON node IS 'Making a cell makes its root.';
GRANT INSERT ON node TO cellexport_api;
GRANT SELECT, INSERT, DELETE ON cell TO cellexport_api;
-- Locking a row takes the right to change some column of it.
GRANT UPDATE (created_at) ON cell TO cellexport_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON job, snapshot_entry TO cellexport_api;
GRANT SELECT, INSERT, UPDATE ON generation TO cellexport_api;

-- The worker. Contents are its own through cellexport_data.
GRANT SELECT, INSERT, UPDATE ON cell TO cellexport_worker;
GRANT SELECT, UPDATE ON job TO cellexport_worker;
GRANT SELECT, UPDATE, DELETE ON snapshot_entry TO cellexport_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON generation TO cellexport_worker;
GRANT USAGE, SELECT ON SEQUENCE document_position, document_front TO cellexport_data;

-- The directory of a cell. These run as the owner of the schema: the api asks for one account, one list of roles, one
-- root, and cannot read anything else of what cells hold.
CREATE FUNCTION directory_root(p_cell text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT pmeta FROM node WHERE generation = (SELECT generation FROM cell WHERE id = p_cell) AND path = ''
$$;
COMMENT ON FUNCTION directory_root(text) IS 'The .pmeta of a cell''s root.';

CREATE FUNCTION directory_roles(p_cell text, p_ids text[])
RETURNS TABLE (id text, name text, box_id text, box_name text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT r.id,
         document_text(r.body, '{_source,s,Name}'),
         document_text(r.body, '{_source,l,Box}'),
         document_text(b.body, '{_source,s,Name}')
  FROM cell
  JOIN document r ON r.generation = cell.generation AND r.type = 'Role' AND r.id = ANY (p_ids)
  LEFT JOIN document b
    ON b.generation = r.generation AND b.type = 'Box' AND b.id = document_text(r.body, '{_source,l,Box}')
  WHERE cell.id = p_cell
$$;
COMMENT ON FUNCTION directory_roles(text, text[]) IS 'The roles with these ids, and the boxes they belong to.';

CREATE FUNCTION directory_account(p_cell text, p_name text, p_roles bigint) RETURNS TABLE (status text, roles text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT document_text(a.body, '{_source,s,Status}'),
         ARRAY (
           SELECT document_text(l.body, '{_source,k2}')
           FROM document l
           WHERE l.generation = a.generation AND l.type = 'link'
             AND strpos(l.body, '"Account"') > 0 AND strpos(l.body, '"Role"') > 0
             AND left(document_text(l.body, '{_source,k1}'), 200) = left(a.id, 200)
             AND document_text(l.body, '{_source,k1}') = a.id
             AND document_text(l.body, '{_source,t1}') = 'Account'
             AND document_text(l.body, '{_source,t2}') = 'Role'
             AND document_text(l.body, '{_source,k2}') IS NOT NULL
           LIMIT p_roles)
  FROM cell
  JOIN document a ON a.generation = cell.generation AND a.type = 'Account'
   AND left(document_text(a.body, '{_source,s,Name}'), 200) = left(p_name, 200)
   AND document_text(a.body, '{_source,s,Name}') = p_name
  WHERE cell.id = p_cell
  ORDER BY a.id
  LIMIT 1
$$;
COMMENT ON FUNCTION directory_account(text, text, bigint) IS 'An account by its name: its status, and the ids of the roles it is linked to.';

CREATE FUNCTION directory_password(p_cell text, p_name text) RETURNS TABLE (status text, algorithm text, hash text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
  SELECT document_text(a.body, '{_source,s,Status}'),
         document_text(a.body, '{_source,h,HashAlgorithm}'),
         document_text(a.body, '{_source,h,HashedCredential}')
  FROM cell
  JOIN document a ON a.generation = cell.generation AND a.type = 'Account'
   AND left(document_text(a.body, '{_source,s,Name}'), 200) = left(p_name, 200)
   AND document_text(a.body, '{_source,s,Name}') = p_name
  WHERE cell.id = p_cell
  ORDER BY a.id
  LIMIT 1
$$;
COMMENT ON FUNCTION directory_password(text, text) IS 'The hash of an account''s password.';

REVOKE EXECUTE ON FUNCTION directory_root(text), directory_roles(text, text[]), directory_account(text, text, bigint),
  directory_password(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION directory_root(text), directory_roles(text, text[]), directory_account(text, text, bigint),
  directory_password(text, text) TO cellexport_api;
