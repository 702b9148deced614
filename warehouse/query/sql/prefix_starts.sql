-- Prefixes in the trees that a measured model can be trained from: right ones where it fails, wrong ones where not.
-- place orders those of a question, the best visited of each depth first; solved of asked continuations were right
-- in the newest evaluation of the model from prefixes, if there is one. value is the search's own rate from there.
-- Those of searches that zoom (zooms) end with a crop.
WITH measured AS (
    SELECT
        model,
        prompt,
        tree_id,
        node_id,
        count(*) FILTER (score >= 1) AS solved,
        count(*) AS asked,
        measured_at
    FROM (
        SELECT evaluation_id, prefix_tree AS tree_id, prefix_node AS node_id, score
        FROM predictions
        WHERE prefix_node IS NOT NULL AND score IS NOT NULL
    )
    JOIN (
        SELECT evaluation_id, model_id AS model, prompt, created_at AS measured_at
        FROM evaluations
        WHERE control = 'prefixes' AND temperature > 0
    ) USING (evaluation_id)
    GROUP BY evaluation_id, model, prompt, tree_id, node_id, measured_at
    QUALIFY row_number() OVER (
        PARTITION BY model, prompt, tree_id, node_id ORDER BY measured_at DESC, evaluation_id
    ) = 1
),
known AS (
    SELECT
        model,
        prompt,
        question_id,
        task,
        family,
        split,
        tree_id,
        node_id,
        path,
        depth,
        visits,
        value,
        zooms,
        CASE good_for WHEN 'right prefixes' THEN 'right' ELSE 'wrong' END AS kind
    FROM student_prompts
    JOIN (
        SELECT tree_id, question_id, json_extract(config, '$.zoom.lens') IS NOT NULL AS zooms
        FROM trees
    ) USING (question_id)
    JOIN (
        SELECT tree_id, node_id, path, depth, visits, value, coalesce(observation.x1 IS NOT NULL, false) AS looked
        FROM nodes
        WHERE thought IS NOT NULL AND discarded IS NULL AND visits > 0
    ) USING (tree_id)
    WHERE measured_by = 'model' AND zooms = looked AND (
        (band = 'unsolved' AND good_for = 'right prefixes' AND value >= 0.5)
        OR (band IN ('easy', 'solved') AND value < 0.5)
    )
),
numbered AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY model, prompt, question_id, zooms, depth ORDER BY visits DESC, tree_id, node_id
        ) AS of_depth
    FROM known
)
SELECT
    numbered.* EXCLUDE (of_depth),
    row_number() OVER (
        PARTITION BY model, prompt, question_id, zooms ORDER BY of_depth, depth
    ) AS place,
    measured.solved,
    measured.asked,
    measured.solved / measured.asked AS pass_rate,
    measured.measured_at
FROM numbered
LEFT JOIN measured USING (model, prompt, tree_id, node_id)
