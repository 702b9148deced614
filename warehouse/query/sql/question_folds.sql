-- The side of every question, so that no image is on two: validation is a tenth of the groups of training images. place < 0.05 is half of it.
WITH newest AS (
    SELECT image_id, group_id, place
    FROM folds
    QUALIFY version = max(version) OVER (PARTITION BY image_id)
)
SELECT
    question_id,
    task,
    split,
    group_id,
    place,
    CASE
        WHEN split <> 'train' THEN split
        WHEN place < 0.1 THEN 'validation'
        WHEN place IS NOT NULL THEN 'train'
    END AS fold
FROM questions
LEFT JOIN newest ON newest.image_id = questions.image_ids[1] AND split = 'train'
