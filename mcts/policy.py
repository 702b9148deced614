"""A search's policy: a question's prompt, asked of a teacher through the journal.

    policy = TeacherPolicy(question, config, tree_id, asking, images)
    tree = await search(question, config, policy, grade, tree_id)

This is where a place in a tree becomes a request. Expansion and rollout of one node are the same
prompt and differ only in where they stop, so a server's prefix cache serves the second. Each
sample's seed is a hash of its place (consecutive seeds would overlap between requests), and so is
its name, so a search that is run again asks for the same things under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcts.budget import Cost
from mcts.data import Question, Step
from mcts.journal.journal import JournaledTeacher, Key
from mcts.journal.records import Record
from mcts.prompts import build_messages, load_prompt
from mcts.samples import Sample
from mcts.search import SearchConfig, thoughts_demanded
from mcts.teachers.base import Request, seed_of

_STOPS = {
    "expand": ("</think>", "</answer>"),
    "step": ("</think>", "</answer>"),
    "rollout": ("</answer>",),
    "chain": ("</answer>",),
    "answer": ("</answer>",),
    "finish": ("</answer>",),
}
_ONLY_THE_ANSWER = frozenset({"answer", "finish"})
# An answer is a few words or one action; it needs no more than this, whatever a step may need.
_ANSWER_TOKENS = 64


class TeacherPolicy:
    """Proposes continuations for one search; see `mcts.samples.Policy`."""

    def __init__(
        self,
        question: Question,
        config: SearchConfig,
        tree_id: str,
        asking: JournaledTeacher,
        images: Mapping[str, bytes],
    ) -> None:
        self._question, self._config, self._tree_id = question, config, tree_id
        self._asking, self._images = asking, images
        self._prompt = load_prompt(config.prompt)
        self._min_thoughts = thoughts_demanded(tree_id, config)

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> list[Sample]:
        """`n` continuations of `steps`, from the journal or from the teacher."""
        key = Key(self._tree_id, node, purpose, first)
        record = await self._asking.ask(key, self.request(key, steps, n), self._images)
        # Half a surrogate pair, which a model can emit, can be written neither to a table nor into
        # the next request; the journal keeps it.
        tokens = record.prompt_tokens, record.completion_tokens
        cost = Cost(*tokens, record.started_at, record.seconds)
        return [
            Sample(
                storable(completion.text),
                completion.finish_reason,
                sample_id(record, i),
                () if i else (cost,),
            )
            for i, completion in enumerate(record.completions)
        ]

    def request(self, key: Key, steps: Sequence[Step], n: int) -> Request:
        """What is asked at `key`."""
        config = self._config
        finishing = key.purpose in _ONLY_THE_ANSWER
        tokens = config.step_tokens
        if finishing:
            tokens = min(tokens, _ANSWER_TOKENS)
        elif key.purpose == "rollout":
            tokens *= config.rollout_steps + 1
        elif key.purpose == "chain":
            tokens *= config.max_depth + 1
        return Request(
            messages=build_messages(
                self._prompt, self._question, config.space, self._min_thoughts, steps, finishing
            ),
            n=n,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=tokens,
            stop=_STOPS[key.purpose],
            seed=seed_of(key.search_id, key.node, key.purpose, key.sample),
            most_thoughts=self._most_thoughts(key.purpose, len(steps)),
        )

    def _most_thoughts(self, purpose: str, depth: int) -> int:
        """How many thoughts may follow `depth` of them before an answer is forced; 0 untold."""
        left = self._config.max_depth - depth
        if not self._config.bounded or purpose not in ("rollout", "chain"):
            return 0
        return left if purpose == "chain" else min(self._config.rollout_steps, left)


def storable(text: str) -> str:
    """`text` with what UTF-8 cannot hold replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def sample_id(record: Record, i: int) -> str:
    """The name of the `i`-th response in a record."""
    return f"{record.response_id}.{i}"
