"""A small byte-level tokenizer: single digits, the tags of grounded reasoning, everyday words.

    tokenizer = build_tokenizer()     # trained in seconds from the words below, always the same
    tokenizer.encode("<think>The red box is at (412, 630).</think>")

Every byte is a token of its own before merging, so any UTF-8 text survives encoding and decoding.
"""

from __future__ import annotations

from itertools import cycle, product

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mcts.prompts import choices_line
from vigorl_nano.pretraining.data import LINES
from vigorl_nano.pretraining.phrases import ALL, DEPTH
from vigorl_nano.rooms.objects import COLOURS, KINDS, PLURALS
from vigorl_nano.rooms.wording import WORDING

VOCABULARY = 1600
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<tool_call>",
    "</tool_call>",
    "<observation>",
    "</observation>",
)
# A comma before a number keeps its space, so a point costs ten tokens; digits stay single.
SPLIT = (
    r", (?=\p{N})|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = """
the a an and or not is are was be been it its this that these those there here of in on at to
from with without by for as into onto over under above below between behind before after near
far next beside inside outside left right up down top bottom middle centre center corner edge
side front back first second third last other another both each every same different one two
three four five six seven eight nine ten more less most least many few some any all none only
also again still already now then later so because since if but while when where which what who
how why yes no see look looking find found check checking verify compare count move moved moving
turn turned rotate rotated point click type scroll stop wait go zoom crop open close press
search select drag closer nearer farther away toward towards around across through against along
step steps think answer directly question image images picture photo frame camera room floor
wall window door object objects thing person man woman child dog cat bird car truck bus bike
tree house street road sign sky grass table chair sofa bed lamp shelf box ball cone cylinder cup
bottle plate book phone clock vase plant red orange yellow green blue purple white black grey
gray brown pink cyan dark light bright small large big tall short wide narrow round square long
thin thick wooden metal glass plastic material colour color shape size height width distance
position place region area part button link menu icon text field input box checkbox page tab
search home login sign submit cancel save delete edit add cart price product review user name
email password address list item image title header footer settings help next previous back
forward would could should can cannot will may must let try seems seem off something else wrong
actually however therefore thus instead maybe gathered information provide final based have has
had do does did you your we our they their he she goal aim facing face perspective standing
stands sits stand sit sitting visible hidden clear show shows shown appear appears contain
contains hold holds true false
""".split()  # noqa: SIM905 - quoted, the words would fill pages
SAMPLES = (
    '<tool_call>\n{"name": "search_coordinate", "arguments": '
    '{"coordinate": [412, 630]}}\n</tool_call>',
    "<observation>\nHere is the crop of the image centered on the coordinate\n</observation>",
    "Wait, this seems off. Let's try something else.",
    "You are a helpful assistant. # Tools You may call one or more functions to assist with the "
    "query.",
    "click [12] type [7] [hello] scroll [down] go_back stop [done]",
    '{"type": "function", "function": {"name": "zoom", "description": "", "parameters": {}}}',
    "Based on all the information I have gathered, I will now provide my final answer.",
    "Think in at least 3 steps. Choices: left or right. Answer directly.",
    "system\nuser\nassistant\ntool\n",
)


def corpus() -> list[str]:
    names = [f"{c} {k}" for c, k in product(COLOURS, KINDS)]
    lines = [f"{text} {word} {word.capitalize()}" for word in WORDS for text in ("",) * 3]
    far = DEPTH.format(metres=2.5)
    for phrase in (p for group in ALL for p in group):
        for depth in ("", far):
            lines += [phrase.format(name=n, a="a", point="(4, 2)", depth=depth) for n in names]
    what = [f"{c} objects" for c in COLOURS] + [PLURALS.get(k, k + "s") for k in KINDS]
    asks = [line.format(k=3) for line in LINES.values()]
    rows = list(zip(names, names[::-1], names[7:] + names[:7], strict=True))
    for wording in (w for family in WORDING.values() for w in family):
        for (a, b, c), t, ask in zip(rows, cycle(what), cycle(asks), strict=False):
            question = wording.format(a=a, b=b, c=c, what=t, an=f"a {a}", kind=a.split()[1])
            lines.append(f"{question}{choices_line((a, b, c))}\n{ask}")
    # An answer starts its text without a space: these words need a token of that form too.
    lines += [
        "left",
        "right",
        "above",
        "below",
        "yes",
        "no",
        "in",
        "behind",
        "straight",
        *COLOURS,
    ] * 40
    return lines + list(SAMPLES) * 60


def build_tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(TAGS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    plain = corpus()
    for tag in (*SPECIAL, *TAGS):
        plain = [line.replace(tag, " ") for line in plain]
    made.train_from_iterator(plain, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "im_start_token": "<|im_start|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
        },
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )
    # The tags are ordinary tokens to the decoder: a decoded answer keeps them.
    tokenizer.add_tokens(list(TAGS), special_tokens=False)
    return tokenizer
