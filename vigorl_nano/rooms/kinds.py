"""What can stand in a room: colours, kinds with their sizes and materials, and muted surroundings.

Numbers alone; `scene` puts them together.
"""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 45, 42),
    "orange": (242, 133, 28),
    "yellow": (247, 214, 54),
    "green": (52, 158, 72),
    "blue": (44, 98, 214),
    "purple": (138, 62, 178),
}
KINDS = ("ball", "box", "chair", "lamp", "shelf", "sofa", "table", "vase")
PLURALS = {"box": "boxes", "shelf": "shelves"}
SIZES = {  # metres wide, high and deep at scale 1
    "ball": (0.5, 0.5, 0.5),
    "box": (0.48, 0.46, 0.48),
    "chair": (0.5, 0.95, 0.5),
    "lamp": (0.52, 1.5, 0.52),
    "shelf": (0.9, 1.5, 0.36),
    "sofa": (1.6, 0.8, 0.8),
    "table": (1.2, 0.75, 0.75),
    "vase": (0.34, 0.5, 0.34),
}
SCALES = {  # least and greatest scale; 0.92 to 1.08 for the kinds not named here
    "ball": (0.6, 1.3),
    "box": (0.74, 1.25),
    "vase": (0.74, 1.2),
}
MATERIALS = {  # what the coloured surface of a kind may be made of
    "ball": ("plastic", "metal", "wood", "fabric", "ceramic"),
    "box": ("plastic", "wood", "metal", "fabric"),
    "chair": ("wood", "plastic", "fabric", "metal"),
    "lamp": ("fabric",),
    "shelf": ("wood", "metal", "plastic"),
    "sofa": ("fabric",),
    "table": ("wood", "plastic", "metal"),
    "vase": ("ceramic", "metal", "plastic"),
}
ON_STAND = ("ball", "box", "vase")
STAND = 0.44  # metres a side

# Walls and floors stay pale or greyish: the named colours belong to the objects alone.
WALLS = (
    (226, 218, 204),
    (196, 206, 200),
    (192, 204, 216),
    (222, 214, 218),
    (214, 206, 186),
    (208, 204, 200),
    (184, 194, 194),
    (232, 226, 214),
)
FLOORS = (
    (186, 154, 122),
    (158, 130, 104),
    (204, 182, 150),
    (154, 146, 138),
    (178, 172, 164),
    (136, 114, 94),
)
