-- What people say of each trace that was reviewed: how many find it right, wrong or can't say, and the majority.
SELECT
    trace_id,
    count(*) FILTER (verdict = 'right') AS say_right,
    count(*) FILTER (verdict = 'wrong') AS say_wrong,
    count(*) FILTER (verdict = 'unsure') AS say_unsure,
    CASE
        WHEN say_right > say_wrong THEN 'right'
        WHEN say_wrong > say_right THEN 'wrong'
        ELSE 'unsure'
    END AS majority
FROM latest_reviews
WHERE step IS NULL
GROUP BY trace_id
