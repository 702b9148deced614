-- The relations of lineage: each statement yields pairs (made_from, made_into) of ids; they may repeat.
-- A head line says when a walk follows it (always; far or near, by the kind it starts from; run) and
-- from which kind to which it leads. A node is named tree_id/node_id, a dataset version name@vN.

--- always: source -> image
SELECT source AS made_from, image_id AS made_into FROM images;

--- always: source -> question
-- most have the source of their images, and are reached through these
SELECT source AS made_from, question_id AS made_into FROM questions ANTI JOIN (SELECT question_id,
images.source FROM (SELECT question_id, unnest(image_ids) AS image_id FROM questions) JOIN images
USING (image_id)) USING (question_id, source);

--- always: image -> question
SELECT unnest(image_ids) AS made_from, question_id AS made_into FROM questions;

--- always: question -> tree
SELECT question_id AS made_from, tree_id AS made_into FROM trees;

--- always: model -> tree
SELECT unnest(string_split(model, ' + ')) AS made_from, tree_id AS made_into FROM trees;

--- always: question -> trace
SELECT question_id AS made_from, trace_id AS made_into FROM traces WHERE tree_id IS NULL;

--- always: evaluation -> trace
SELECT evaluation_id AS made_from, trace_id AS made_into FROM predictions;

--- always: model -> trace
SELECT unnest(string_split(model, ' + ')) AS made_from, trace_id AS made_into FROM traces ANTI JOIN
predictions USING (trace_id) WHERE tree_id IS NULL;

--- always: trace -> dataset
SELECT trace_id AS made_from, ref AS made_into FROM _held;

--- always: dataset -> model
SELECT dataset AS made_from, model_id AS made_into FROM models;

--- always: question -> model
SELECT unnest(question_ids) AS made_from, model_id AS made_into FROM models;

--- always: model -> model
SELECT coalesce(b.model_id, m.base) AS made_from, m.model_id AS made_into FROM models m LEFT JOIN
models b ON m.base = b.model_id OR m.base = b.name;

--- always: model -> evaluation
SELECT unnest(string_split(model_id, ' + ')) AS made_from, evaluation_id AS made_into FROM
evaluations;

--- far: tree -> trace
SELECT tree_id AS made_from, trace_id AS made_into FROM traces;

--- near: tree -> response
SELECT tree_id AS made_from, response_id AS made_into FROM responses;

--- near: image -> crop
SELECT image_ids[observation.image + 1] AS made_from, crop_id AS made_into FROM nodes JOIN trees
USING (tree_id) JOIN questions USING (question_id) UNION ALL SELECT image_ids[observation.image +
1], crop_id FROM steps JOIN traces USING (trace_id) JOIN questions USING (question_id);

--- near: crop -> node
SELECT crop_id AS made_from, tree_id || '/' || node_id AS made_into FROM nodes;

--- near: crop -> trace
-- of steps that are not nodes: a rollout's, or an evaluated model's
SELECT crop_id AS made_from, trace_id AS made_into FROM steps WHERE rollout_id IS NOT NULL OR
node_id IS NULL;

--- near: response -> node
SELECT response_id AS made_from, tree_id || '/' || node_id AS made_into FROM nodes;

--- near: tree -> node
-- the root, which no response wrote
SELECT tree_id AS made_from, tree_id || '/' || node_id AS made_into FROM nodes WHERE response_id
IS NULL;

--- near: node -> trace
SELECT traces.tree_id || '/' || node_id AS made_from, trace_id AS made_into FROM steps JOIN traces
USING (trace_id);

--- near: response -> trace
-- steps of a rollout, which are not nodes
SELECT response_id AS made_from, trace_id AS made_into FROM steps WHERE rollout_id IS NOT NULL;

--- near: tree -> trace
SELECT tree_id AS made_from, trace_id AS made_into FROM traces ANTI JOIN (SELECT trace_id FROM
steps WHERE node_id IS NOT NULL) USING (trace_id);

--- run: run -> image
SELECT run_id AS made_from, image_id AS made_into FROM images;

--- run: run -> question
SELECT run_id AS made_from, question_id AS made_into FROM questions;

--- run: run -> tree
SELECT run_id AS made_from, tree_id AS made_into FROM trees;

--- run: run -> trace
SELECT run_id AS made_from, trace_id AS made_into FROM traces;

--- run: run -> dataset
SELECT run_id AS made_from, name || '@v' || version AS made_into FROM dataset_versions;

--- run: run -> model
SELECT run_id AS made_from, model_id AS made_into FROM models;

--- run: run -> evaluation
SELECT run_id AS made_from, evaluation_id AS made_into FROM evaluations;
