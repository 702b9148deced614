-- Traces that every filter keeps, by each filter's latest verdict. A trace nobody judged is not kept.
SELECT *
FROM traces
SEMI JOIN (
    SELECT trace_id
    FROM latest_verdicts
    GROUP BY trace_id
    HAVING bool_and(keep)
) USING (trace_id)
