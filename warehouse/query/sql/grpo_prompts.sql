-- How often a model's searches answer each question right, as a band: unsolved, hard, …, solved.
-- Every first step counts the same in the pass rate, however often the search followed it; chains sampled whole
-- are a first step each.
WITH first_step AS (
    SELECT
        tree_id,
        CASE path WHEN '' THEN 'rollout ' || rollout_id ELSE split_part(path, '.', 1) END AS step,
        count(*) AS outcomes,
        count(*) FILTER (reward >= 1) AS right_outcomes
    FROM outcomes
    GROUP BY ALL
),
rated AS (
    SELECT
        question_id,
        model,
        count(DISTINCT tree_id) AS trees,
        sum(outcomes)::BIGINT AS outcomes,
        sum(right_outcomes)::BIGINT AS right_outcomes,
        count(*) AS first_steps,
        round(avg(right_outcomes / outcomes), 9) AS pass_rate
    FROM first_step
    JOIN (SELECT tree_id, question_id, model FROM trees) USING (tree_id)
    GROUP BY question_id, model
)
SELECT
    question_id,
    task,
    family,
    split,
    rated.* EXCLUDE (question_id),
    band
FROM rated
JOIN (SELECT question_id, task, family, split FROM questions) USING (question_id)
ASOF JOIN pass_rate_bands ON pass_rate >= at_least
