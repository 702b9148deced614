-- How answers of an evaluation end, by family: how many of each outcome, and their share of the family's.
SELECT
    evaluation_id,
    model_id,
    benchmark,
    control,
    prompt,
    family,
    outcome,
    count(*) AS answers,
    count(*) / sum(count(*)) OVER (PARTITION BY evaluation_id, family) AS share
FROM prediction_outcomes
GROUP BY evaluation_id, model_id, benchmark, control, prompt, family, outcome
ORDER BY evaluation_id, family, answers DESC, outcome
