-- How far two people agree on the traces that both reviewed: the share of same verdicts, and Cohen's kappa.
-- Kappa is what the share has above chance, as a part of what it could have; null where chance alone agrees always.
WITH paired AS (
    SELECT a.reviewer AS reviewer_a, b.reviewer AS reviewer_b, a.verdict AS said_a, b.verdict AS said_b
    FROM latest_reviews AS a
    JOIN latest_reviews AS b USING (trace_id)
    WHERE a.step IS NULL AND b.step IS NULL AND a.reviewer < b.reviewer
),
shares AS (
    SELECT
        reviewer_a,
        reviewer_b,
        count(*) AS traces,
        avg((said_a = said_b)::INT) AS agreement,
        (
            count(*) FILTER (said_a = 'right') * count(*) FILTER (said_b = 'right')
            + count(*) FILTER (said_a = 'wrong') * count(*) FILTER (said_b = 'wrong')
            + count(*) FILTER (said_a = 'unsure') * count(*) FILTER (said_b = 'unsure')
        ) / count(*) ** 2 AS by_chance
    FROM paired
    GROUP BY reviewer_a, reviewer_b
)
SELECT
    reviewer_a,
    reviewer_b,
    traces,
    agreement,
    CASE WHEN by_chance < 1 THEN (agreement - by_chance) / (1 - by_chance) END AS kappa
FROM shares
ORDER BY reviewer_a, reviewer_b
