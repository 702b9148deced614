-- Each person's newest verdict on each trace, or step of it.
SELECT *
FROM reviews
QUALIFY row_number() OVER (
    PARTITION BY trace_id, step, reviewer ORDER BY created_at DESC, review_id DESC
) = 1
