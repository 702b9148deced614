-- How often searches find a right answer, by task and family of question.
SELECT
    task,
    family,
    count(*) AS trees,
    avg(any_right::INT) AS found_right,
    avg(root_value) AS mean_value
FROM trees
JOIN (SELECT question_id, family FROM questions) USING (question_id)
WHERE status = 'complete'
GROUP BY task, family
ORDER BY task, family
