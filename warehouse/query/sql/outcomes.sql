-- Every graded end a search reached: terminal nodes and rollouts. No answer is graded 0, answer null.
SELECT tree_id, node_id, NULL::BIGINT AS rollout_id, path, answer, reward
FROM nodes
WHERE terminal AND reward IS NOT NULL
UNION ALL
SELECT tree_id, node_id, rollout_id, path, rollouts.answer, rollouts.reward
FROM rollouts
JOIN (SELECT tree_id, node_id, path FROM nodes) USING (tree_id, node_id)
WHERE rollouts.reward IS NOT NULL
