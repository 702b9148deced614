-- The bands of pass rates, from never right to never wrong: a rate is in the last band that it reaches.
SELECT *
FROM (
    VALUES ('unsolved', 0.0), ('hard', 1e-9), ('medium', 0.25), ('easy', 0.75), ('solved', 1.0)
) AS bands (band, at_least)
