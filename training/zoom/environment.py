"""The zoom tools as an environment for TRL's own GRPOTrainer, with nothing else of this package.

    from trl import GRPOTrainer
    GRPOTrainer(
        model, rewards.functions, args=GRPOConfig(reward_weights=rewards.weights, …),
        train_dataset=prompts.dataset(),               # with the columns `question` and `zoom`
        environment_factory=partial(ZoomEnvironment, space, prompts.read_image),
    )

One object plays one episode. Its public methods are the tools that TRL puts into the prompt, so the
prompt of the rows should not describe them again. The model's chat template must render tools, and
images in their turns, as Qwen3-VL's does. Calls are answered as in every other part (`mcts.zoom`);
what TRL can't read as a call, it does not answer, and an episode that calls on behind the last
observation is told so (`over_limit`), but not masked. `vigorl train grpo` does both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Observation, Question, Step
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL, read_call
from mcts.tool_calls.views import Views
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import CropImages
from mcts.zoom.observe import observation_text, observe
from training.examples import decode_image
from training.rewards.question_column import read_question, read_zoom

_OVER = "No further call is answered. Give your answer."


class ZoomEnvironment:
    """Answers the calls of one episode."""

    def __init__(self, space: CoordinateSpace, read_image: Callable[[str], bytes]) -> None:
        """
        Args:
            space: the model's coordinates.
            read_image: the encoded bytes of an image by its id.
        """
        self._space, self._read_image = space, read_image
        self._question: Question | None = None
        self._zoom: ZoomConfig | None = None
        self._images = CropImages({})
        self.steps: tuple[Step, ...] = ()
        """The calls of the episode so far, and what they showed."""
        self.over_limit = False
        """Whether it called where the answer was asked for."""

    def reset(self, *, question: str, zoom: str, **columns: Any) -> None:
        """Begin an episode about a row's question."""
        self._question, self._zoom = read_question(question).question, read_zoom(zoom)
        names = [image.image_id for image in self._question.images]
        self._images = CropImages({name: self._read_image(name) for name in names})
        self.steps, self.over_limit = (), False

    def search_coordinate(self, coordinate: list[float], image: int = 1) -> Any:
        """
        Show the region around a place enlarged.

        Args:
            coordinate: The place as [x, y].
            image: Which picture: 1 is the first image of the question, and every region that was
                shown has the next number.

        Returns:
            The region, and its number.
        """
        return self._answer(POINT_TOOL, {"coordinate": coordinate, "image": image})

    def image_zoom_in_tool(self, bbox_2d: list[float], label: str = "", image: int = 1) -> Any:
        """
        Show a region enlarged.

        Args:
            bbox_2d: The region as [x1, y1, x2, y2].
            label: What to look for there.
            image: Which picture: 1 is the first image of the question, and every region that was
                shown has the next number.

        Returns:
            The region, and its number.
        """
        return self._answer(BOX_TOOL, {"bbox_2d": bbox_2d, "label": label, "image": image})

    def _answer(self, tool: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what a call shows, as parts of a message."""
        assert self._question is not None and self._zoom is not None
        if self.steps and self._last.last:
            self.over_limit = True
            return [{"type": "text", "text": f"<observation>{_OVER}</observation>"}]
        frame = Frame.of(self._space, self._question)
        written = json.dumps({"name": tool, "arguments": arguments}, default=str)
        call = read_call(written, Views.of(frame, self.steps))
        observation = observe(frame, self.steps, call, self._zoom)
        step = Step("", (), call, observation)
        self.steps = (*self.steps, step)
        text = {"type": "text", "text": observation_text(observation)}
        if observation.crop is None:
            return [text]
        (name,) = self._images.add(self._question, (step,))
        return [{"type": "image", "image": decode_image(self._images[name])}, text]

    @property
    def _last(self) -> Observation:
        observation = self.steps[-1].observation
        assert observation is not None
        return observation
