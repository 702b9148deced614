"""vigorl-nano: four embedded vision-language models, from their architecture to their weights.

They are ordinary checkpoints, found by name through the entry points `vigorl.models` of
pyproject.toml, and their recipes through `vigorl.recipes`, as any other package's would be: no file
of the product knows this package.
"""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights")
BASE = WEIGHTS / "base"
"""nano-base, which the others were trained on from."""
READER = WEIGHTS / "reader"
"""nano-reader, the student of the recipes and of `make claim-points`."""
TEACHER = WEIGHTS / "teacher"
"""nano, also nano-teacher: the teacher."""
ZOOM = WEIGHTS / "zoom"
"""nano-zoom, which looks closer before it answers; teacher and student."""
DEFAULT = "nano"
"""The model that commands use where none is given."""
DEFAULT_VSTAR = "nano-zoom"
"""The same for builds of the task `vstar`."""
DEFAULT_WEB_GROUNDING = "nano-zoom"
"""The same for builds of the task `web-grounding`."""
RECIPES = Path(__file__).with_name("recipes")
"""Training recipes for these models."""
