-- Kept traces of searches with difficulty, trust and a fixed drawing: take those of smallest draw first.
-- The same numbers as curation.traces.sampling; trust is the mean of (right + 1) / (visits + 2) over the
-- nodes a trace goes through, its wrong attempt left out.
WITH kept AS (
    SELECT trace_id, question_id, tree_id, task, kind, model, wrong_from, turns_back_at
    FROM kept_traces
    WHERE origin = 'search'
),
through AS (
    SELECT DISTINCT trace_id, tree_id, node_id
    FROM steps
    JOIN kept USING (trace_id)
    WHERE node_id IS NOT NULL
        AND NOT coalesce(step >= wrong_from AND step < turns_back_at, false)
),
trusted AS (
    -- Summed in a fixed order, so that the same rows give the same number to the last bit.
    SELECT
        trace_id,
        list_sum(
            list((coalesce(value, 0) * visits + 1) / (visits + 2) ORDER BY node_id)
        ) / count(*) AS trust
    FROM through
    JOIN (SELECT tree_id, node_id, value, visits FROM nodes) USING (tree_id, node_id)
    GROUP BY trace_id
)
SELECT
    trace_id,
    question_id,
    task,
    family,
    split,
    kind,
    model,
    band,
    coalesce(trust, 0.5) AS trust,
    -ln((('0x' || md5('|' || trace_id)[:13])::BIGINT + 0.5) / 4503599627370496)
        / coalesce(trust, 0.5) AS draw
FROM kept
JOIN (SELECT question_id, family, split FROM questions) USING (question_id)
LEFT JOIN trusted USING (trace_id)
LEFT JOIN (SELECT question_id, model, band FROM grpo_prompts) USING (question_id, model)
