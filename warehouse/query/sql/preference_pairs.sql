-- Two steps from one place of a tree of which one did better: the best child against each worse one.
-- The same pairs as curation.traces.preferences.pairs; margin is the difference of values, standard_error is the
-- margin's, least_visits are those of the side that has fewer.
WITH child AS (
    SELECT tree_id, node_id, parent_id, thought, call, answer, visits, value, standard_error
    FROM nodes
    LEFT JOIN (
        SELECT tree_id, node_id, standard_error FROM step_values
    ) USING (tree_id, node_id)
    WHERE parent_id IS NOT NULL AND discarded IS NULL AND visits > 0
),
best AS (
    SELECT *
    FROM child
    QUALIFY row_number() OVER (
        PARTITION BY tree_id, parent_id ORDER BY value DESC, visits DESC, node_id
    ) = 1
)
SELECT
    tree_id,
    question_id,
    task,
    model,
    parent_id,
    best.node_id AS chosen_node_id,
    best.thought AS chosen_thought,
    best.answer AS chosen_answer,
    best.visits AS chosen_visits,
    best.value AS chosen_value,
    best.standard_error AS chosen_standard_error,
    child.node_id AS rejected_node_id,
    child.thought AS rejected_thought,
    child.answer AS rejected_answer,
    child.visits AS rejected_visits,
    child.value AS rejected_value,
    child.standard_error AS rejected_standard_error,
    best.value - child.value AS margin,
    sqrt(best.standard_error ** 2 + child.standard_error ** 2) AS standard_error,
    least(best.visits, child.visits) AS least_visits,
    best.call AS chosen_call,
    child.call AS rejected_call
FROM best
JOIN child USING (tree_id, parent_id)
JOIN (SELECT tree_id, question_id, task, model FROM trees) USING (tree_id)
WHERE child.value < best.value AND (
    child.thought IS DISTINCT FROM best.thought
    OR child.call IS DISTINCT FROM best.call
    OR child.answer IS DISTINCT FROM best.answer
)
QUALIFY row_number() OVER (
    PARTITION BY tree_id, parent_id, child.thought, child.call, child.answer
    ORDER BY child.node_id
) = 1
