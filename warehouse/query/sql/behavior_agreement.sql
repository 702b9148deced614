-- How far two methods agree on how often traces show a behavior: same count, Spearman's rank correlation.
-- Shown for each pair of methods over the traces that both counted. The correlation is null where either
-- method gave every trace the same count.
WITH paired AS (
    SELECT
        trace_id,
        a.behavior,
        a.method AS method_a,
        b.method AS method_b,
        a.count AS count_a,
        b.count AS count_b
    FROM behaviors AS a
    JOIN behaviors AS b USING (trace_id)
    WHERE a.behavior = b.behavior AND a.method > b.method
        AND a.count IS NOT NULL AND b.count IS NOT NULL
),
ranked AS (
    -- Ties get the mean of their ranks, as Spearman's correlation wants.
    SELECT
        *,
        rank() OVER low_a + (count(*) OVER same_a - 1) / 2.0 AS rank_a,
        rank() OVER low_b + (count(*) OVER same_b - 1) / 2.0 AS rank_b
    FROM paired
    WINDOW
        low_a AS (PARTITION BY behavior, method_a, method_b ORDER BY count_a),
        low_b AS (PARTITION BY behavior, method_a, method_b ORDER BY count_b),
        same_a AS (PARTITION BY behavior, method_a, method_b, count_a),
        same_b AS (PARTITION BY behavior, method_a, method_b, count_b)
)
SELECT
    behavior,
    method_a,
    method_b,
    count(*) AS traces,
    avg(count_a) AS mean_a,
    avg(count_b) AS mean_b,
    avg((count_a = count_b)::INT) AS same_count,
    avg(((count_a > 0) = (count_b > 0))::INT) AS same_presence,
    CASE
        WHEN min(count_a) < max(count_a) AND min(count_b) < max(count_b)
        THEN corr(rank_a, rank_b)
    END AS spearman
FROM ranked
GROUP BY ALL
ORDER BY ALL
