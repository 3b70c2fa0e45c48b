#!/usr/bin/env bash
# The users that the services log in as; the roles they are members of are described in migrations/0006_roles.sql.
# The image runs this once, with a new volume. With an older one, run it by hand in the container, before the migration.
set -euo pipefail

psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
  -v api="$(cat /run/secrets/postgres_api_password)" -v worker="$(cat /run/secrets/postgres_worker_password)" <<'SQL'
SELECT 'CREATE ROLE ' || r || ' NOLOGIN'
  FROM unnest(ARRAY['cellexport_data', 'cellexport_reader', 'cellexport_worker', 'cellexport_api']) r
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) \gexec
SELECT 'CREATE ROLE ' || quote_ident(u) || ' LOGIN' FROM unnest(ARRAY['cellexport-api', 'cellexport-worker']) u
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = u) \gexec
ALTER ROLE "cellexport-api" PASSWORD :'api';
ALTER ROLE "cellexport-worker" PASSWORD :'worker';
GRANT cellexport_data, cellexport_reader TO cellexport_worker;
GRANT cellexport_api TO "cellexport-api";
GRANT cellexport_worker TO "cellexport-worker";
SQL
