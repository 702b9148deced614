"""The claim for points, `make claim-points`: search, train every arm, compare."""
