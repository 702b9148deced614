-- Traces that every filter keeps, by the newest linearizer and filters. Traces that no filter has seen are left out.
SELECT *
FROM latest_traces
SEMI JOIN (
    SELECT trace_id
    FROM latest_verdicts
    GROUP BY trace_id
    HAVING bool_and(keep)
) USING (trace_id)
