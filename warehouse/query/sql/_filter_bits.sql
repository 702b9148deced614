-- The bit of each filter that has judged a trace, in the sets of `_filter_sets`; 128 filters have one.
SELECT filter, 1::UHUGEINT << (row_number() OVER (ORDER BY filter) - 1)::UHUGEINT AS bit
FROM (SELECT DISTINCT filter FROM verdicts WHERE filter <> '(none)')
