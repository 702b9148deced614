-- Traces that every filter keeps, as the newest code cuts and judges them. What nobody judged is out.
SELECT *
FROM latest_traces
SEMI JOIN (
    SELECT trace_id
    FROM latest_verdicts
    GROUP BY trace_id
    HAVING bool_and(keep)
) USING (trace_id)
