-- What reasoning does (ViGoRL, Table 5): mean counts a trace, by model, by right or wrong, and by method.
SELECT
    model,
    origin,
    method,
    reward >= 1 AS answered_right,
    behavior,
    count(behaviors.count) AS traces,
    avg(behaviors.count) AS mean_count,
    avg((behaviors.count > 0)::INT) AS share_of_traces
FROM behaviors
JOIN latest_traces USING (trace_id)
-- Answers about blank images, or about another question's, are in behaviors_by_evaluation.
ANTI JOIN (
    SELECT trace_id
    FROM predictions
    SEMI JOIN (SELECT evaluation_id FROM evaluations WHERE control IS NOT NULL)
        USING (evaluation_id)
) USING (trace_id)
GROUP BY ALL
ORDER BY ALL
