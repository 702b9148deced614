-- What each step of a tree is worth: value, visits, standard error (null below 2 visits), advantage.
-- The same rows as curation.traces.step_values.step_values; advantage is the value less the parent's.
WITH backed_up AS (
    SELECT
        tree_id,
        unnest([array_to_string(steps[:i], '.') FOR i IN range(1, len(steps) + 1)]) AS path,
        reward
    FROM (SELECT tree_id, string_split(path, '.') AS steps, reward FROM outcomes)
),
errors AS (
    SELECT tree_id, path, stddev_samp(reward) / sqrt(count(*)) AS standard_error
    FROM backed_up
    GROUP BY tree_id, path
)
SELECT
    node.tree_id,
    trees.question_id,
    trees.task,
    trees.model,
    node.node_id,
    node.parent_id,
    node.depth,
    node.thought,
    node.x,
    node.y,
    node.image,
    node.visits,
    node.value,
    standard_error,
    node.value - parent.value AS advantage,
    node.call,
    node.observation
FROM nodes AS node
JOIN nodes AS parent ON parent.tree_id = node.tree_id AND parent.node_id = node.parent_id
JOIN trees ON trees.tree_id = node.tree_id
LEFT JOIN errors ON errors.tree_id = node.tree_id AND errors.path = node.path
WHERE node.thought IS NOT NULL AND node.discarded IS NULL AND node.visits > 0
