"""The paper's claim on the embedded models, `make claim`: search, train every arm, compare."""
