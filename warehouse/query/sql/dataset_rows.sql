-- The traces of every dataset version, as they were when it was cut; what it was cut from may have changed since.
SELECT dataset_rows.*
FROM _dataset_rows AS dataset_rows
SEMI JOIN dataset_versions USING (name, version)
