-- Questions that a revocation reaches: by themselves, or through their source, their import or an image.
WITH shown AS (
    SELECT question_id, unnest(image_ids) AS image_id FROM questions
),
named AS (
    SELECT
        question_id,
        unnest(['question', 'source', 'run']) AS subject,
        unnest([question_id, source, run_id]) AS value
    FROM questions
    UNION ALL
    SELECT question_id, 'image', image_id FROM shown
    UNION ALL
    SELECT question_id, unnest(['source', 'run']), unnest([images.source, images.run_id])
    FROM shown JOIN images USING (image_id)
)
SELECT DISTINCT question_id, revocation_id, subject, value, reason
FROM named
JOIN revocations USING (subject, value)
