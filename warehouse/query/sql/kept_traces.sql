-- Traces that every filter keeps, by the newest linearizer and filters. Traces that no filter has seen are left out.
SELECT *
FROM latest_traces
SEMI JOIN (SELECT trace_id FROM _filter_sets WHERE dropped = 0) USING (trace_id)
