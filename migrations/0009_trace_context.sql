-- What a request said of the trace it belongs to, so that the attempts of its job belong to the same one. Whoever knows
-- nothing of it leaves it out.
ALTER TABLE job
  ADD COLUMN traceparent text CHECK (octet_length(traceparent) = 55),
  ADD COLUMN tracestate  text CHECK (octet_length(tracestate) BETWEEN 1 AND 512);
COMMENT ON COLUMN job.traceparent IS 'The span that asked for it (W3C Trace Context), if the request was traced.';
COMMENT ON COLUMN job.tracestate IS 'What other vendors keep of that trace, passed on unread.';
