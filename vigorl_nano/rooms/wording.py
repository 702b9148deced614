"""What the questions about rooms say: their families, wordings, and the share a guess gets right.

    WORDING["closer"][0].format(a="red ball", b="blue sofa")
    CHANCE["depth_order"]                                      # 1/3

Slots: {a}, {b}, {c} are object names, {an} a name with its article, {what} a plural, {kind} a kind.
"""

from __future__ import annotations

from vigorl_nano.rooms.objects import PLURALS, Count

WORDING = {
    "left_right": (
        "Is the {a} to the left or to the right of the {b}?",
        "On which side of the {b} is the {a}, as seen from the camera?",
        "Looking at the picture, does the {a} stand left or right of the {b}?",
    ),
    "above_below": (
        "In the picture, is the {a} above or below the {b}?",
        "Does the {a} appear above or below the {b} in the image?",
        "Where in the image is the {a} compared with the {b}?",
    ),
    "front_behind": (
        "Is the {a} in front of or behind the {b}, as seen from the camera?",
        "From where the camera is, does the {a} stand in front of the {b} or behind it?",
    ),
    "closer": (
        "Which object is closer to the camera, the {a} or the {b}?",
        "Which is nearer to the camera taking this photo, the {a} or the {b}?",
        "Of the {a} and the {b}, which one is closer to you?",
    ),
    "depth_order": (
        "Which is nearest to the camera: the {a}, the {b} or the {c}?",
        "Of the {a}, the {b} and the {c}, which is nearest to you?",
        "Which is farthest from the camera: the {a}, the {b} or the {c}?",
        "Of the {a}, the {b} and the {c}, which is farthest from you?",
    ),
    "count": (
        "How many {what} are there in the room?",
        "How many {what} can you see in the picture?",
        "Count the {what}. How many are there?",
    ),
    "exists": (
        "Is there {an} in the room?",
        "Can you see {an} in the picture?",
    ),
    "colour": (
        "What colour is the {kind}?",
        "Which colour does the {kind} in the picture have?",
    ),
    "object_moved": (
        "The first image was taken before the second. Which object was moved in between?",
        "One object changed its place between the two images. Which one was it?",
        "Comparing the first image with the second, which object has moved?",
    ),
    "camera_turn": (
        "The first image was taken before the second. Did the camera turn left or right?",
        "Which way did the camera rotate between the first image and the second?",
        "Nothing in the room moved, but the camera turned. Did it turn left or right?",
    ),
    "perspective": (
        "If you stood at the {a} facing the {b}, would the {c} be on your left or on your right?",
        "Imagine standing at the {a} and looking at the {b}. Is the {c} to your left or right?",
    ),
    "goal_aim": (
        "You stand where the camera is, looking straight ahead. To walk to the {a}, which way do "
        "you turn first?",
        "From where the camera is, looking straight ahead, which way do you go to reach the {a}?",
    ),
}
FAMILIES = tuple(WORDING)
CHANGE = {"object_moved": "moved", "camera_turn": "turned"}  # families that need a second frame
OPTIONS = {family: 3 if family == "depth_order" else 2 for family in FAMILIES}
CHANCE: dict[str, float] = {family: 1 / n for family, n in OPTIONS.items()}


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(count: Count) -> str:
    """Return the plural that a counting question asks for: "boxes", "red objects"."""
    if count.attribute == "kind":
        return PLURALS.get(count.value, count.value + "s")
    return f"{count.value} objects"
