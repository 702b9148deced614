-- Each filter's newest word on each trace. A filter that the newest judgement of its stage no longer asks is out.
SELECT *
FROM verdicts
QUALIFY version = max(version) OVER (PARTITION BY trace_id, stage) AND filter <> '(none)'
