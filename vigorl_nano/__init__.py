"""vigorl-nano: the embedded vision-language models, from their architecture to their weights."""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights")
BASE = WEIGHTS / "base"  # nano-base, the student
READER = WEIGHTS / "reader"  # nano-reader, the student of the claim
TEACHER = WEIGHTS / "teacher"  # nano-teacher, the default teacher

EMBEDDED = {"nano": TEACHER, "nano-teacher": TEACHER, "nano-base": BASE, "nano-reader": READER}
"""What they are called wherever a model is named."""
