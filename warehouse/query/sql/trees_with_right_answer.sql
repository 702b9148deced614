-- Searches in which some rollout or final node earned a full reward, with their questions.
SELECT trees.*, questions.text AS question, questions.choices, questions.answers, questions.family
FROM trees
JOIN questions USING (question_id)
WHERE any_right
