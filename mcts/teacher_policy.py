"""The policy of a real search: a question's prompt, answered by a teacher through the journal.

    policy = TeacherPolicy(question, config, tree_id, teacher, images)
    tree = await search(question, config, policy, grade, tree_id)

This is where a node of a tree becomes a request. Expansion and rollout of one node have the same
prompt and differ only in where they stop, so a server's prefix cache serves the second. Where the
model may zoom, both are one turn, up to a call or an answer, and the crops of earlier turns are
images of the request; they are rendered once a tree. Each request's seed is a hash of its key
(consecutive seeds would overlap between requests), so a search that is run again makes the same
requests under the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcts.budget import Cost
from mcts.config import SearchConfig, draw_min_thoughts
from mcts.data import Question, Step
from mcts.journal.journal import JournaledTeacher
from mcts.journal.records import Key, Record
from mcts.policy import Continuation
from mcts.prompts import build_messages, load_prompt
from mcts.teachers.base import Request
from mcts.zoom.crops import CropImages
from mcts.zoom.turns import STOPS

_STOPS = {
    "expand": ("</think>", "</answer>"),
    "step": ("</think>", "</answer>"),
    "rollout": ("</answer>",),
    "chain": ("</answer>",),
    "answer": ("</answer>",),
    "finish": ("</answer>",),
}
_ANSWER_ONLY = frozenset({"answer", "finish"})
_ANSWER_TOKENS = 64
"""Token limit of an answer, which is a few words or one action, whatever a step may need."""


class TeacherPolicy:
    """Proposes continuations for one search; see `mcts.policy.Policy`."""

    def __init__(
        self,
        question: Question,
        config: SearchConfig,
        tree_id: str,
        teacher: JournaledTeacher,
        images: Mapping[str, bytes],
    ) -> None:
        self._question, self._config, self._tree_id = question, config, tree_id
        self._teacher = teacher
        if config.zoom is not None and not isinstance(images, CropImages):
            images = CropImages(images)
        self._images = images
        self._prompt = load_prompt(config.prompt)
        self._min_thoughts = draw_min_thoughts(tree_id, config)

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> list[Continuation]:
        """Return `n` continuations of `steps`, from the journal or from the teacher."""
        key = Key(self._tree_id, node, purpose, first)
        if isinstance(self._images, CropImages):
            self._images.add(self._question, steps)
        record = await self._teacher.ask(
            key, self.request(key, steps, n), self._images, follows=bool(steps)
        )
        cost = Cost(
            record.prompt_tokens, record.completion_tokens, record.started_at, record.seconds,
            record.image_tokens,
        )  # fmt: skip
        return [
            Continuation(
                storable(completion.text),
                completion.finish_reason,
                sample_id(record, i),
                () if i else (cost,),
                completion.mean_logprob,
            )
            for i, completion in enumerate(record.completions)
        ]

    def request(self, key: Key, steps: Sequence[Step], n: int) -> Request:
        """Build the request at `key`."""
        config = self._config
        answer_only = key.purpose in _ANSWER_ONLY
        tokens, stop = config.step_tokens, _STOPS.get(key.purpose, STOPS)
        if answer_only:
            tokens = min(tokens, _ANSWER_TOKENS)
        elif config.zoom is not None:
            stop = STOPS  # whatever for, a request is one turn
        elif key.purpose == "rollout":
            tokens *= config.rollout_steps + 1
        elif key.purpose == "chain":
            tokens *= config.max_depth + 1
        return Request(
            messages=build_messages(
                self._prompt,
                self._question,
                config.space,
                self._min_thoughts,
                steps,
                answer_only,
                config.zoom,
            ),
            n=n,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=tokens,
            stop=stop,
            seed=key.seed,
            logprobs=self._wants_logprobs(key.purpose),
            max_thoughts=self._max_thoughts(key.purpose, len(steps)),
        )

    def _wants_logprobs(self, purpose: str) -> bool:
        """Return whether steps come with their log-probabilities: those that are chosen among."""
        return self._config.policy_prior != 0 and purpose == "expand"

    def _max_thoughts(self, purpose: str, depth: int) -> int:
        """Return how many thoughts may follow `depth` of them; 0 leaves it to the teacher."""
        config = self._config
        left = config.max_depth - depth
        if not config.bounded or config.zoom is not None or purpose not in ("rollout", "chain"):
            return 0
        return left if purpose == "chain" else min(config.rollout_steps, left)


def storable(text: str) -> str:
    """Replace what UTF-8 cannot encode by question marks.

    A model can emit half a surrogate pair. The journal keeps it, but neither a table nor the next
    request can hold it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def sample_id(record: Record, i: int) -> str:
    """Name the `i`-th response of a record."""
    return f"{record.response_id}.{i}"
