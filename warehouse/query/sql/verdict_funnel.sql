-- What each filter kept and dropped, and how many traces it alone dropped.
WITH judged AS (
    SELECT * FROM latest_verdicts SEMI JOIN latest_traces USING (trace_id)
),
dropped AS (
    SELECT trace_id, count(*) AS drops
    FROM judged
    WHERE NOT keep
    GROUP BY trace_id
)
SELECT
    filter,
    count(*) FILTER (keep) AS kept,
    count(*) FILTER (NOT keep) AS dropped,
    count(*) FILTER (NOT keep AND drops = 1) AS dropped_by_it_alone
FROM judged
LEFT JOIN dropped USING (trace_id)
GROUP BY filter
ORDER BY dropped DESC, filter
