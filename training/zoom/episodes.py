"""Episodes of a student that zooms: the tokens it wrote, and those it was shown in between.

    episode = SampledEpisode.begin(row, frame, zoom, prompt_ids, images)
    while episode.ended is None:
        tokens = …                                     # of one turn, sampled behind `context`
        episode.take(tokens, text, ended, show)        # reads it; a call's crop follows
    episode.completion_ids, episode.mask, episode.images

Tokens stay as they were sampled and nothing is tokenized twice, so the trainer's probabilities are
of what the sampler wrote. A call ends its turn; what it shows (`mcts.zoom`) is written behind it as
the chat template writes it, and masked from the loss. An episode that hits a limit ends there,
without an answer: it is masked, and no member of its group, since an answer that was forced says
nothing about how to look (Mini-o3's over-turn masking). One that got there with calls that showed
nothing is not excused so: it counts as an episode without an answer, or a student learns to call
on wherever it would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from mcts.coordinates import Frame
from mcts.data import Observation, Question, Step
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import CropImages, crop_of
from mcts.zoom.observe import observation_text
from mcts.zoom.turns import read_turn
from training.chat_templates import PAD, ChatTemplate
from training.examples import decode_image
from training.vision_cache import ImageInput


class EpisodeEnd(StrEnum):
    """How an episode ended."""

    ANSWERED = "answered"
    SILENT = "silent"
    """A turn ended without a call or an answer."""
    OVER_TURN = "over_turn"
    """It called where the answer was asked for."""
    CUT_OFF = "cut_off"
    """A turn, or all its turns, had too many tokens."""


AT_A_LIMIT = (EpisodeEnd.OVER_TURN, EpisodeEnd.CUT_OFF)
"""Ends without an answer, of which nothing is learned where every call showed something."""


Encoder = Callable[[str], Sequence[int]]


@dataclass(slots=True)
class SampledEpisode:
    """One answer to one question, turn by turn."""

    question: Question
    frame: Frame
    zoom: ZoomConfig
    prompt_ids: list[int]
    images: list[Any]
    """The question's, then the crops as they were shown; PIL."""
    inputs: list[ImageInput]
    """The same as the model takes them."""
    steps: tuple[Step, ...] = ()
    texts: list[str] = field(default_factory=list)
    """What it wrote, by turn."""
    messages: list[dict[str, str]] = field(default_factory=list)
    """The turns with the observations in between, as rewards and trackers read them."""
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 for tokens that it wrote, 0 for what it was shown."""
    entropies: list[float] = field(default_factory=list)
    """Of each token that it wrote, in nats; of none where the sampler does not say."""
    ended: EpisodeEnd | None = None
    begun: int = 0
    """How many of its steps it was begun with."""

    @property
    def context(self) -> list[int]:
        """All tokens so far."""
        return self.prompt_ids + self.completion_ids

    @property
    def written(self) -> int:
        """How many tokens it wrote."""
        return sum(self.mask)

    @property
    def forced(self) -> bool:
        """Whether it hit a limit."""
        return self.ended in AT_A_LIMIT

    @property
    def masked(self) -> bool:
        """Whether nothing is learned of it: it hit a limit, and no call of its showed nothing."""
        return self.forced and not any(
            step.observation is not None and step.observation.problem
            for step in self.steps[self.begun :]
        )

    def begin(self, turns: Sequence[str], encode: Encoder, shown: Observer) -> None:
        """Take the turns of a prefix, each of which ends in a call; it goes on behind them."""
        for text in turns:
            self.take(encode(text), text, True, shown)
            assert self.ended is None, "each turn of a prefix ends in a call"
        self.begun = len(self.steps)
        self.mask = [0] * len(self.completion_ids)

    def copied(self) -> SampledEpisode:
        """Return an episode that goes on apart from this one."""
        return replace(
            self, images=[*self.images], inputs=[*self.inputs], texts=[*self.texts],
            messages=[*self.messages], completion_ids=[*self.completion_ids], mask=[*self.mask],
            entropies=[*self.entropies],
        )  # fmt: skip

    def take(self, tokens: Sequence[int], text: str, complete: bool, shown: Observer) -> None:
        """Add a turn, and what its call shows.

        Args:
            tokens: as they were sampled.
            text: what they say, up to the end of the turn.
            complete: whether the turn ended by itself, and was not cut off.
        """
        self.completion_ids += tokens
        self.mask += [1] * len(tokens)
        self.texts.append(text)
        self.messages.append({"role": "assistant", "content": text})
        if not complete:
            self.ended = EpisodeEnd.CUT_OFF
            return
        turn = read_turn(text, self.frame, self.zoom, self.steps)
        self.steps = (*self.steps, *turn.steps)
        if turn.called:
            self._observe(shown)
        elif "call_after_limit" in turn.problems:
            self.ended = EpisodeEnd.OVER_TURN
        else:
            self.ended = EpisodeEnd.SILENT if turn.answer is None else EpisodeEnd.ANSWERED

    def _observe(self, shown: Observer) -> None:
        observation = self.steps[-1].observation
        assert observation is not None
        crop = None
        if observation.crop is not None:
            image, crop = shown.crop(self.question, self.steps[-1])
            self.images.append(image)
            self.inputs.append(crop)
        tokens = shown.turn(observation, crop)
        if self.completion_ids[-1] == tokens[0]:  # it ended its turn itself
            tokens = tokens[1:]
        self.completion_ids += tokens
        self.mask += [0] * len(tokens)
        text = observation_text(observation)
        self.messages.append({"role": self.zoom.role, "content": text})


class Observer:
    """Makes what calls show: crops as the model takes them, and the turn that holds them."""

    def __init__(self, processor: Any, role: str, images: CropImages) -> None:
        """
        Args:
            role: the turn in which the chat template shows a crop.
            images: the questions' images, encoded; the crops are cut from these.
        """
        self._processor, self._images = processor, images
        self._merge = processor.image_processor.merge_size**2
        self._pad = processor.tokenizer.convert_tokens_to_ids(PAD)
        self._turn = lru_cache(maxsize=256)(lambda text, image: self._tokens(role, text, image))
        self._crops: dict[str, tuple[Any, ImageInput]] = {}

    def crop(self, question: Question, step: Step) -> tuple[Any, ImageInput]:
        """Return the crop that a step was shown, as an image and as the model takes it."""
        name = crop_of(question, step)
        if name not in self._crops:
            self._images.add(question, (step,))
            image = decode_image(self._images[name])
            made = self._processor.image_processor(images=[image], return_tensors="pt")
            found = ImageInput.of(made["pixel_values"], made["image_grid_thw"][0])
            self._crops[name] = (image, found)
        return self._crops[name]

    def turn(self, observation: Observation, crop: ImageInput | None) -> list[int]:
        """Return the tokens from the end of the student's turn to the beginning of its next."""
        tokens = self._turn(observation_text(observation), crop is not None)
        if crop is None:
            return list(tokens)
        at = tokens.index(self._pad)
        count = int(crop.grid.prod()) // self._merge
        return [*tokens[:at], *[self._pad] * count, *tokens[at + 1 :]]

    def _tokens(self, role: str, text: str, image: bool) -> tuple[int, ...]:
        turns = [
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": _MARK}]},
            {
                "role": role,
                "content": [{"type": "image"}] * image + [{"type": "text", "text": text}],
            },
        ]
        rendered, _ = ChatTemplate.of(self._processor).render(turns, "zoom", generation_prompt=True)
        behind = rendered.rpartition(_MARK)[2]
        tokenizer = self._processor.tokenizer
        return tuple(tokenizer(behind, add_special_tokens=False)["input_ids"])


_MARK = "<answer>what the student wrote</answer>"
