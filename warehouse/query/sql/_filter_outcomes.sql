-- How many of the newest traces have each pair of sets of `_filter_sets`.
SELECT judged, dropped, count(*) AS traces
FROM _filter_sets
SEMI JOIN (SELECT trace_id FROM latest_traces) USING (trace_id)
GROUP BY judged, dropped
