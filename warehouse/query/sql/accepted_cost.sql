-- What a kept trace costs: tokens and seconds of all searches of a task, per trace that every filter keeps.
WITH spent AS (
    SELECT
        task,
        count(*) AS trees,
        sum(requests) AS requests,
        sum(prompt_tokens) AS prompt_tokens,
        sum(cached_tokens) AS cached_tokens,
        sum(completion_tokens) AS completion_tokens,
        sum(seconds) AS seconds
    FROM trees
    GROUP BY task
),
kept AS (
    SELECT task, count(*) AS kept_traces
    FROM kept_traces
    WHERE origin = 'search'
    GROUP BY task
)
SELECT
    task,
    trees,
    coalesce(kept_traces, 0) AS kept_traces,
    requests,
    prompt_tokens,
    cached_tokens,
    completion_tokens,
    completion_tokens / nullif(kept_traces, 0) AS completion_tokens_per_kept_trace,
    (prompt_tokens - coalesce(cached_tokens, 0)) / nullif(kept_traces, 0)
        AS new_prompt_tokens_per_kept_trace,
    seconds / nullif(kept_traces, 0) AS seconds_per_kept_trace
FROM spent
LEFT JOIN kept USING (task)
ORDER BY task
