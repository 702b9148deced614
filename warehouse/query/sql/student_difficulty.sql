-- How often each evaluated model answers each question right, plainly sampled, with a 95% interval and its age.
-- Of each model and prompt the newest evaluation above temperature 0 counts, with the question's own images
-- and crops, from the question on; one of a single answer only where there is none of several. The interval of the
-- rate is Wilson's (1927).
WITH counted AS (
    SELECT
        question_id,
        model,
        prompt,
        evaluation_id,
        measured_at,
        count(*) FILTER (score >= 1) AS solved,
        count(*) AS asked
    FROM (SELECT evaluation_id, question_id, score FROM predictions WHERE score IS NOT NULL)
    JOIN (
        SELECT evaluation_id, model_id AS model, prompt, samples, created_at AS measured_at
        FROM evaluations
        WHERE control IS NULL AND temperature > 0
    ) USING (evaluation_id)
    GROUP BY question_id, model, prompt, samples, evaluation_id, measured_at
    QUALIFY row_number() OVER (
        PARTITION BY question_id, model, prompt ORDER BY samples > 1 DESC, measured_at DESC, evaluation_id
    ) = 1
),
rated AS (
    SELECT
        *,
        solved / asked AS pass_rate,
        1.959964 ** 2 / asked AS z,
        1.959964 * sqrt(solved / asked * (1 - solved / asked) / asked + z / (4 * asked)) AS half
    FROM counted
)
SELECT
    question_id,
    task,
    family,
    split,
    rated.model,
    rated.prompt,
    rated.solved,
    rated.asked,
    rated.pass_rate,
    greatest(0, (pass_rate + z / 2 - half) / (1 + z)) AS low,
    least(1, (pass_rate + z / 2 + half) / (1 + z)) AS high,
    band,
    rated.measured_at,
    rated.evaluation_id
FROM rated
JOIN (SELECT question_id, task, family, split FROM questions) USING (question_id)
ASOF JOIN pass_rate_bands ON pass_rate >= at_least
