-- How often people agree with each filter: of what it keeps they find right, of what it drops wrong, with 95% intervals.
-- Over the traces on which a majority says right or wrong. The intervals are Wilson's (1927), and hold for traces that
-- were drawn at random.
WITH decided AS (
    SELECT filter, keep, ((majority = 'right') = keep)::INT AS agrees
    FROM latest_verdicts
    JOIN reviewed_traces USING (trace_id)
    WHERE majority <> 'unsure' AND filter <> 'review'
),
rated AS (
    SELECT
        filter,
        keep,
        count(*) AS reviewed,
        sum(agrees)::BIGINT AS agreed,
        avg(agrees) AS share,
        1.959964 ** 2 / count(*) AS z,
        1.959964 * sqrt(avg(agrees) * (1 - avg(agrees)) / count(*) + z / (4 * count(*))) AS half
    FROM decided
    GROUP BY filter, keep
)
SELECT
    filter,
    keep,
    reviewed,
    agreed,
    share,
    greatest(0, (share + z / 2 - half) / (1 + z)) AS low,
    least(1, (share + z / 2 + half) / (1 + z)) AS high
FROM rated
ORDER BY filter, keep DESC
