-- Each answer of an evaluation with what became of it: right, or the first thing that went wrong.
SELECT
    predictions.evaluation_id,
    evaluations.model_id,
    evaluations.benchmark,
    evaluations.control,
    evaluations.prompt,
    predictions.question_id,
    predictions.sample,
    predictions.trace_id,
    questions.family,
    predictions.answer,
    predictions.score,
    CASE
        WHEN predictions.error IS NOT NULL THEN 'request failed'
        WHEN predictions.score >= 1 THEN 'right'
        WHEN predictions.answer IS NULL AND predictions.finish_reason = 'length' THEN 'cut off'
        WHEN predictions.answer IS NULL AND len(list_filter(
            traces.problems, lambda p: p NOT IN (
                'thought_without_point', 'point_outside_image', 'answer_forced', 'call_after_limit',
                'call_no_such_image', 'call_point_outside_image', 'call_shown_already'
            ) AND NOT starts_with(p, 'unread_')
        )) > 0 THEN 'malformed'
        WHEN predictions.answer IS NULL THEN 'no answer'
        WHEN NOT predictions.valid THEN 'not an option'
        WHEN list_contains(traces.problems, 'point_outside_image')
            THEN 'wrong, a point outside the image'
        WHEN traces.n_points = 0 THEN 'wrong, no points'
        WHEN looked.on_named IS NULL AND looked.on_asked IS NULL AND predictions.looked_at IS NULL
            THEN 'wrong, nothing known of its points'
        WHEN coalesce(looked.on_named, true) AND coalesce(looked.on_asked, true)
            AND coalesce(predictions.looked_at, 1) = 1
            THEN 'wrong, points on the right objects'
        ELSE 'wrong, points elsewhere'
    END AS outcome
FROM predictions
JOIN (SELECT evaluation_id, model_id, benchmark, control, prompt FROM evaluations) AS evaluations
    ON evaluations.evaluation_id = predictions.evaluation_id
JOIN (SELECT question_id, family FROM questions) AS questions
    ON questions.question_id = predictions.question_id
JOIN (SELECT trace_id, problems, n_points FROM traces) AS traces
    ON traces.trace_id = predictions.trace_id
LEFT JOIN (
    SELECT trace_id, bool_and(grounded) AS on_named, bool_or(shows_asked) AS on_asked
    FROM steps
    GROUP BY trace_id
) AS looked
    ON looked.trace_id = predictions.trace_id
