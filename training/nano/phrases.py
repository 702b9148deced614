"""The ways a step may be worded; the tokenizer learns from them and the sequences use them.

`{point}` is the coordinate with its image, e.g. `(412, 630)` or `(412, 630) in image 2`.
"""

REFERRED_ONE = (
    "The {name} is at {point}.",
    "I see the {name} at {point}.",
    "The {name} stands at {point}.",
)
REFERRED_FIRST = (
    "In the first picture, the {name} is at {point}.",
    "Before, the {name} is at {point}.",
)
REFERRED_SECOND = (
    "In the second picture, the {name} is at {point}.",
    "After, the {name} is at {point}.",
)
REFERRED = (REFERRED_ONE, REFERRED_FIRST, REFERRED_SECOND)
OTHER = (
    "There is also {a} {name} at {point}.",
    "Another object, the {name}, is at {point}.",
)
VERIFY = (
    "Looking again, the {name} is at {point}.",
    "Checking once more, the {name} is at {point}.",
)
