"""A cycle of retraining: what is new becomes traces, a version, a student, and a decision."""
