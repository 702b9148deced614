-- Traces without those that a newer version of the linearizer has cut from the same tree anew.
SELECT *
FROM traces
QUALIFY tree_id IS NULL OR linearizer IS NOT DISTINCT FROM max_by(
    linearizer, try_cast(split_part(linearizer, '/', 2) AS INT)
) OVER (PARTITION BY tree_id)
