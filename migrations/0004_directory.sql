-- What the api asks of a cell for every request with a token of that cell: an account by name, and its roles.

CREATE FUNCTION document_text(p_body text, p_path text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN document_json(p_body) #>> p_path;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;
COMMENT ON FUNCTION document_text(text, text[]) IS 'The text at a path of a document; NULL where there is none, and for a body that is no JSON: an index must not refuse it.';

-- Only the beginning of a name is indexed, as an index takes no value of any length; whoever looks compares the rest.
CREATE INDEX document_account_name ON document (generation, left(document_text(body, '{_source,s,Name}'), 200))
  WHERE type = 'Account';
COMMENT ON INDEX document_account_name IS 'Finds the account that a token or a password is for.';
-- The search for texts is cheap beside the reading of JSON, and few of many links pass it.
CREATE INDEX document_account_roles ON document (generation, left(document_text(body, '{_source,k1}'), 200))
  WHERE type = 'link' AND strpos(body, '"Account"') > 0 AND strpos(body, '"Role"') > 0;
COMMENT ON INDEX document_account_roles IS 'Finds the links from an account to its roles.';
