-- What reasoning does (ViGoRL, Table 5) in each evaluation: mean counts an answer, by method.
SELECT
    evaluation_id,
    evaluations.model_id,
    evaluations.benchmark,
    evaluations.control,
    evaluations.temperature,
    evaluations.accuracy,
    behaviors.method,
    behaviors.behavior,
    count(behaviors.count) AS answers,
    avg(behaviors.count) AS mean_count,
    avg((behaviors.count > 0)::INT) AS share_of_answers
FROM predictions
JOIN evaluations USING (evaluation_id)
JOIN behaviors USING (trace_id)
GROUP BY ALL
ORDER BY ALL
