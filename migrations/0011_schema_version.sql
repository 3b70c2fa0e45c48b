-- The services may see which migrations were applied: `doctor` compares them with its own.
DO $$
BEGIN
  -- The list belongs to the migrator: there is none where migrations are applied by hand.
  IF to_regclass('_sqlx_migrations') IS NOT NULL THEN
    GRANT SELECT ON _sqlx_migrations TO cellexport_api, cellexport_worker;
  END IF;
END $$;
