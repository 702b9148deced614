-- Which questions are worth asking each measured model, by its own pass rate or else by the searches'; what for.
-- measured_by says whose rate it is; asked, low, high and measured_at are of the model's own. Never right:
-- a right prefix may help; never wrong: a wrong prefix may teach to turn back; where trees have none: nothing.
WITH searched AS (
    SELECT question_id, pass_rate, band
    FROM grpo_prompts
    QUALIFY row_number() OVER (PARTITION BY question_id ORDER BY outcomes DESC, model) = 1
),
ends AS (
    SELECT
        question_id,
        bool_or(reward >= 1) AS any_right,
        bool_or(reward < 1) AS any_wrong
    FROM outcomes
    JOIN (SELECT tree_id, question_id FROM trees) USING (tree_id)
    GROUP BY question_id
),
rated AS (
    SELECT
        model,
        prompt,
        question_id,
        q.task,
        q.family,
        q.split,
        coalesce(own.pass_rate, searched.pass_rate) AS pass_rate,
        coalesce(own.band, searched.band) AS band,
        CASE WHEN own.pass_rate IS NULL THEN 'search' ELSE 'model' END AS measured_by,
        own.asked,
        own.low,
        own.high,
        own.measured_at
    FROM (SELECT DISTINCT model, prompt, task FROM student_difficulty) AS measured
    JOIN (SELECT question_id, task, family, split FROM questions) AS q USING (task)
    LEFT JOIN student_difficulty AS own USING (model, prompt, question_id)
    LEFT JOIN searched USING (question_id)
    WHERE own.band IS NOT NULL OR searched.band IS NOT NULL
)
SELECT
    rated.*,
    CASE
        WHEN band NOT IN ('unsolved', 'solved') THEN 'groups'
        WHEN band = 'unsolved' AND any_right THEN 'right prefixes'
        WHEN band = 'solved' AND any_wrong THEN 'wrong prefixes'
        ELSE 'nothing'
    END AS good_for
FROM rated
LEFT JOIN ends USING (question_id)
