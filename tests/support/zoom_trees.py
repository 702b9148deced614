"""Small trees whose steps look closer, grown by the real search from a script."""

import json

from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from tests.support.grown import grow

ZOOM = ZoomConfig(Lens(50, 100), max_calls=4, role="tool")
"""A call shows 100 x 100 pixels of QUESTION's image, in which thousandths are pixels."""


def look(x, y, thought="A sign is at ({x}, {y}).", image=None):
    """A turn that calls for a place."""
    arguments = {"coordinate": [x, y], **({"image": image} if image else {})}
    call = json.dumps({"name": "search_coordinate", "arguments": arguments})
    return f"<think>{thought.format(x=x, y=y)}</think>\n<tool_call>{call}</tool_call>"


def tell(thought, answer):
    """A turn that answers."""
    return f"<think>{thought}</think>\n<answer>{answer}</answer>"


# One looks in the wrong place and answers wrongly; the other looks right, and then closer.
LOOKS = {
    ("", "expand", 0): look(100, 100),
    ("", "expand", 1): look(800, 800),
    ("0", "rollout", 0): tell("Image 2 shows a 3, so it is right.", "right"),
    ("1", "rollout", 0): look(500, 500, "Image 2 is too small to read.", image=2),
    ("1", "turn", 1): tell("Image 3 shows a 7, so it is left.", "left"),
}


def grow_looks(changes=(), **config):
    config = {"zoom": ZOOM, "simulations": 1, "children": 2, "rollouts": 1, **config}
    return grow({**LOOKS, **dict(changes)}, **config)
