-- Kept traces of searches with the doubt in them and how many people have reviewed them: take the most doubtful first.
-- doubt is the sum of three shares, each 0 where nothing is known: how evenly right and wrong answers are split over
-- the trace's search (4 v (1 - v), v the mean reward of its root), steps that point beside what they name, and the
-- mean of what a judge's grounding scores lack to 1.
WITH pointed AS (
    SELECT trace_id, avg((NOT grounded)::INT) AS beside
    FROM steps
    WHERE grounded IS NOT NULL
    GROUP BY trace_id
),
judged AS (
    SELECT trace_id, 1 - avg(value) AS objection
    FROM step_scores
    WHERE score = 'grounding' AND value IS NOT NULL
    GROUP BY trace_id
)
SELECT
    trace_id,
    question_id,
    task,
    kind,
    coalesce(4 * root_value * (1 - root_value), 0) AS split_answers,
    coalesce(beside, 0) AS points_beside,
    coalesce(objection, 0) AS judges_objection,
    split_answers + points_beside + judges_objection AS doubt,
    coalesce(say_right + say_wrong + say_unsure, 0) AS reviews
FROM kept_traces
LEFT JOIN (SELECT tree_id, root_value FROM trees) USING (tree_id)
LEFT JOIN pointed USING (trace_id)
LEFT JOIN judged USING (trace_id)
LEFT JOIN reviewed_traces USING (trace_id)
WHERE origin = 'search'
