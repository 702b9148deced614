-- Each filter's newest verdict on each trace. A filter that the newest run of its stage no longer applies is left out.
SELECT *
FROM verdicts
QUALIFY version = max(version) OVER (PARTITION BY trace_id, stage) AND filter <> '(none)'
