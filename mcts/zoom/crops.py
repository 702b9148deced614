"""A question's images together with the crops cut from them, by their ids.

    images = CropImages(images)              # a mapping of image ids to encoded bytes
    names = images.add(question, steps)      # ids of the steps' crops, in order
    images[names[0]]                         # JPEG, rendered when it is first read

A crop is rendered once, whoever reads it, however many branches of a tree see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mcts.data import Observation, Question, Step, ZoomCall
from mcts.zoom.render import crop_id, render_crop


class CropImages(Mapping[str, bytes]):
    """Encoded images by id, crops among them.

    `render` makes other crops than the true ones where an experiment controls for what they show.
    """

    def __init__(
        self,
        images: Mapping[str, bytes],
        render: Callable[[bytes, Observation, ZoomCall | None], bytes] = render_crop,
    ) -> None:
        self._images, self._render = images, render
        self._crops: dict[str, tuple[str, Observation, ZoomCall | None]] = {}
        self._rendered: dict[str, bytes] = {}

    def add(self, question: Question, steps: Sequence[Step]) -> tuple[str, ...]:
        """Make the crops of a question's steps known; return their ids, in order."""
        return tuple(
            self._add(question, step)
            for step in steps
            if step.observation and step.observation.crop
        )

    def _add(self, question: Question, step: Step) -> str:
        name = crop_of(question, step)
        if name not in self._crops:
            assert step.observation is not None and step.observation.crop is not None
            image = question.images[step.observation.crop.image]
            self._crops[name] = (image.image_id, step.observation, step.call)
        return name

    def __getitem__(self, image_id: str) -> bytes:
        if image_id not in self._crops:
            return self._images[image_id]
        if image_id not in self._rendered:
            whole, observation, call = self._crops[image_id]
            self._rendered[image_id] = self._render(self._images[whole], observation, call)
        return self._rendered[image_id]

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._crops or image_id in self._images

    def __iter__(self) -> Iterator[str]:
        return iter([*self._images, *self._crops])

    def __len__(self) -> int:
        return len(self._images) + len(self._crops)


def crop_of(question: Question, step: Step) -> str:
    """Return the id of the crop that a step was shown."""
    assert step.observation is not None and step.observation.crop is not None
    image = question.images[step.observation.crop.image]
    return crop_id(image.image_id, step.observation, step.call)
