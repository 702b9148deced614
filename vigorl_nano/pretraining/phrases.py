"""The ways a step may be worded; the tokenizer learns from them and the sequences use them.

`{point}` is the coordinate with its image, e.g. `(412, 630)` or `(412, 630) in image 2`, `{depth}`
is empty or says how far away the object is. Every sentence still reads well when ` at {point}` is
left out, which is how the ungrounded twin of a step is made.
"""

LOOKED_FOR = (
    "I see the {name} at {point}{depth}.",
    "I find the {name} at {point}{depth}.",
    "Here is the {name} at {point}{depth}.",
)
LOOKED_FOR_FIRST = ("In the first picture, I see the {name} at {point}{depth}.",)
LOOKED_FOR_SECOND = ("In the second picture, I see the {name} at {point}{depth}.",)
OTHER = (
    "I also see the {name} at {point}{depth}.",
    "There is also {a} {name} at {point}{depth}.",
)
VERIFY = (
    "Looking again, I see the {name} at {point}{depth}.",
    "I check the {name} at {point}{depth}.",
)
DEPTH = " {metres:.1f} m away"
ALL = (LOOKED_FOR, LOOKED_FOR_FIRST, LOOKED_FOR_SECOND, OTHER, VERIFY)
