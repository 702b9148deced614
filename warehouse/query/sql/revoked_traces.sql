-- Traces that a revocation reaches: by themselves, or through their question, image, source or run.
WITH named AS (
    SELECT trace_id, 'trace' AS subject, trace_id AS value FROM traces
    UNION ALL
    SELECT trace_id, 'run', run_id FROM traces
    UNION ALL
    SELECT trace_id, 'run', trees.run_id FROM traces JOIN trees USING (tree_id)
    UNION ALL
    SELECT trace_id, 'question', question_id FROM traces
    UNION ALL
    SELECT trace_id, 'run', questions.run_id FROM traces JOIN questions USING (question_id)
    UNION ALL
    SELECT trace_id, 'source', source FROM traces JOIN questions USING (question_id)
    UNION ALL
    SELECT trace_id, 'image', unnest(image_ids) FROM traces JOIN questions USING (question_id)
    UNION ALL
    SELECT trace_id, unnest(['source', 'run']), unnest([images.source, images.run_id])
    FROM (
        SELECT trace_id, unnest(image_ids) AS image_id
        FROM traces JOIN questions USING (question_id)
    )
    JOIN images USING (image_id)
)
SELECT DISTINCT trace_id, revocation_id, subject, value, reason
FROM named
JOIN revocations USING (subject, value)
