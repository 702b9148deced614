-- Each filter's latest word on each trace: a filter that was run again, in a newer version, counts once.
SELECT DISTINCT ON (trace_id, filter) *
FROM verdicts
ORDER BY trace_id, filter, created_at DESC, version DESC
