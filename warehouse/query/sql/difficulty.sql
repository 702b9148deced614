-- How hard each search found its question: value of the root, and how soon a first right answer came.
-- An expansion is one request for next steps that added a node to the tree; node numbers give their
-- order, and rollouts belong to the expansion that made their node. A simulation that only went back
-- to a finished leaf, or whose request failed, expands nothing and is not counted.
WITH expanded AS (
    SELECT
        tree_id,
        node_id,
        reward,
        regexp_replace(response_id, '\.\d+$', '') AS request
    FROM nodes
    WHERE response_id IS NOT NULL
),
numbered AS (
    SELECT
        tree_id,
        request,
        row_number() OVER (PARTITION BY tree_id ORDER BY min(node_id)) AS expansion
    FROM expanded
    GROUP BY tree_id, request
),
first_right AS (
    SELECT outcomes.tree_id, min(expansion) AS expansion
    FROM outcomes
    JOIN expanded USING (tree_id, node_id)
    JOIN numbered ON numbered.tree_id = expanded.tree_id AND numbered.request = expanded.request
    WHERE outcomes.reward >= 1
    GROUP BY outcomes.tree_id
),
totals AS (
    SELECT tree_id, count(*) AS expansions FROM numbered GROUP BY tree_id
),
first_chain AS (
    SELECT tree_id, min(rollout_id) FILTER (reward >= 1) + 1 AS chains
    FROM rollouts
    WHERE node_id = 0
    GROUP BY tree_id
)
SELECT
    trees.tree_id,
    trees.question_id,
    trees.task,
    questions.family,
    trees.model,
    coalesce(json_extract_string(trees.config, '$.strategy'), 'mcts') AS strategy,
    trees.root_value,
    trees.root_visits,
    trees.any_right,
    trees.simulations,
    totals.expansions,
    first_right.expansion AS expansions_to_success,
    first_chain.chains AS chains_to_success
FROM trees
LEFT JOIN questions USING (question_id)
LEFT JOIN totals USING (tree_id)
LEFT JOIN first_right USING (tree_id)
LEFT JOIN first_chain USING (tree_id)
WHERE trees.status = 'complete'
