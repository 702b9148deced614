-- What each filter kept and dropped, and how many traces it alone dropped.
SELECT
    filter,
    coalesce(sum(traces) FILTER (dropped & bit = 0), 0)::BIGINT AS kept,
    coalesce(sum(traces) FILTER (dropped & bit > 0), 0)::BIGINT AS dropped,
    coalesce(sum(traces) FILTER (dropped = bit), 0)::BIGINT AS dropped_by_it_alone
FROM _filter_outcomes
JOIN _filter_bits ON judged & bit > 0
GROUP BY filter
ORDER BY dropped DESC, filter
