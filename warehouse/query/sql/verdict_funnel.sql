-- What each filter kept and dropped, and how many traces it alone dropped.
WITH totals AS (
    SELECT filter, count(*) FILTER (keep) AS kept, count(*) FILTER (NOT keep) AS dropped
    FROM latest_verdicts
    SEMI JOIN (SELECT trace_id FROM latest_traces) USING (trace_id)
    GROUP BY filter
),
alone AS (
    SELECT filter, count(*) AS dropped_by_it_alone
    FROM (
        SELECT min(filter) AS filter
        FROM latest_verdicts
        SEMI JOIN (SELECT trace_id FROM latest_traces) USING (trace_id)
        WHERE NOT keep
        GROUP BY trace_id
        HAVING count(*) = 1
    )
    GROUP BY filter
)
SELECT filter, kept, dropped, coalesce(dropped_by_it_alone, 0) AS dropped_by_it_alone
FROM totals
LEFT JOIN alone USING (filter)
ORDER BY dropped DESC, filter
