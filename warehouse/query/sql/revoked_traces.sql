-- Traces that a revocation reaches: by themselves, or through their question, image, source or run.
WITH named AS (
    SELECT trace_id, unnest(['trace', 'run', 'question']) AS subject, unnest([trace_id, run_id, question_id]) AS value
    FROM traces
    UNION ALL
    SELECT trace_id, 'run', trees.run_id FROM traces JOIN trees USING (tree_id)
)
SELECT DISTINCT trace_id, revocation_id, subject, value, reason
FROM named
JOIN revocations USING (subject, value)
UNION
SELECT trace_id, revocation_id, subject, value, reason
FROM traces
JOIN _revoked_questions USING (question_id)
