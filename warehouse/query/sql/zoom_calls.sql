-- What traces looked at closer, by task, model and run: calls, distinct places, failed calls, crops on target.
-- on_asked is the share of crops that show an object in question, of those of which it is known; places are
-- means a trace. Corrected dialogues are left out: the lines that they are made of are counted already.
WITH looked AS (
    SELECT
        trace_id,
        count(*) AS calls,
        count(DISTINCT row(crop.image, crop.x1, crop.y1, crop.x2, crop.y2))
            FILTER (crop.x1 IS NOT NULL) AS places,
        count(*) FILTER (crop.x1 IS NULL) AS failed,
        count(*) FILTER (shows_asked) AS on_asked,
        count(shows_asked) AS known
    FROM (SELECT trace_id, observation AS crop, shows_asked FROM steps)
    WHERE crop IS NOT NULL
    GROUP BY trace_id
)
SELECT
    task,
    model,
    run_id,
    origin,
    count(*) AS traces,
    count(calls) AS traces_with_calls,
    sum(calls)::BIGINT AS calls,
    sum(calls) / count(*) AS calls_per_trace,
    sum(places) / count(*) AS places_per_trace,
    sum(failed)::BIGINT AS failed_calls,
    sum(known)::BIGINT AS known_crops,
    sum(on_asked) / nullif(sum(known), 0) AS on_asked,
    avg(reward) AS reward
FROM latest_traces
LEFT JOIN looked USING (trace_id)
WHERE kind <> 'corrected'
GROUP BY task, model, run_id, origin
HAVING count(calls) > 0
ORDER BY task, model, run_id, origin
