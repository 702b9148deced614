"""What a user can put right before or while a student is trained, in one sentence."""

from __future__ import annotations


class TrainingError(Exception):
    """A recipe, a model or a dataset that cannot be trained with as it is; exit status 2."""
