-- Hosts that run services: a directory is no place for snapshots when there is more than one, unless all of them see it.

CREATE TABLE host (
  id      text PRIMARY KEY CHECK (octet_length(id) BETWEEN 1 AND 100),
  name    text NOT NULL CHECK (octet_length(name) <= 255),
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE host IS 'Hosts that run services, as the services report them. Nothing else depends on it.';
COMMENT ON COLUMN host.id IS 'The id of this run of its kernel, which all containers of a host share; or HOST_ID.';
COMMENT ON COLUMN host.name IS 'Name of the host, or of the container that reported last: for messages.';
COMMENT ON COLUMN host.seen_at IS 'When a service on it reported last.';
COMMENT ON INDEX host_pkey IS 'One row for each host.';
GRANT SELECT, INSERT, UPDATE, DELETE ON host TO cellexport_api, cellexport_worker;
