"""Several models as one teacher: each sample of a tree is drawn from one of them.

    teacher = Ensemble([LocalTeacher("a"), OpenAITeacher("http://gpu:8000")])
    await teacher.open()
    teacher.identity                               # "a@0f3c9b… + qwen@/weights/qwen"
    member_of(teacher.identity, seed)              # who drew the sample with this seed

Siblings come from different models, and so does what follows them: where one model errs alike
time after time, another may see the way (collective search, Yao et al. 2024, 2412.18319). A
sample's seed decides who draws it, so a tree that is searched again or replayed asks the same.
Samples of a request are asked for one by one, as prefix caches are there for. One that fails for
good is empty beside others that do not, since those are paid.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mcts.concurrency import gather
from mcts.teachers.base import (
    Completion,
    Ledger,
    Reply,
    Request,
    Teacher,
    TeacherError,
    TeacherUnavailable,
)
from mcts.teachers.identities import TOGETHER, drawn_by
from mcts.teachers.responses import join_replies

_SILENCE = Reply((Completion("", "length", 0),), 0, None, 0, 0.0)


class Ensemble:
    """Models that answer in turns; see `mcts.teachers.base.Teacher`.

    Raises:
        ValueError: there are fewer than two.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if len(teachers) < 2:
            raise ValueError("an ensemble has two models or more")
        self._teachers = tuple(teachers)

    @property
    def identity(self) -> str:
        """The identities of all, in order."""
        return TOGETHER.join(teacher.identity for teacher in self._teachers)

    @property
    def ledger(self) -> Ledger:
        """The sum over all."""
        return Ledger.total(teacher.ledger for teacher in self._teachers)

    async def open(self) -> None:
        """Open all of them.

        Raises:
            TeacherUnavailable: one of them is not there, or two are the same model.
        """
        await gather(teacher.open() for teacher in self._teachers)
        counts = Counter(teacher.identity for teacher in self._teachers)
        same, times = counts.most_common(1)[0]
        if times > 1:
            raise TeacherUnavailable(
                f"{times} of the teachers are {same}: servers of one model are named with commas "
                "between, and different models by different names.",
                permanent=True,
            )

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`."""
        await self.open()
        started = time.perf_counter()
        alone = [replace(request, n=1, seed=request.sample_seed(i)) for i in range(request.n)]
        replies = await gather(self._complete_one(one, images) for one in alone)
        failures = [reply for reply in replies if isinstance(reply, TeacherError)]
        if len(failures) == len(replies):
            raise failures[0]
        answered = [_SILENCE if isinstance(reply, TeacherError) else reply for reply in replies]
        return replace(join_replies(answered), seconds=time.perf_counter() - started)

    async def _complete_one(
        self, request: Request, images: Mapping[str, bytes]
    ) -> Reply | TeacherError:
        """Ask the model that draws this sample; return what it fails with for good."""
        try:
            return await drawn_by(self._teachers, request.seed).complete(request, images)
        except TeacherError as failure:
            return failure

    async def close(self) -> None:
        """Close all of them."""
        await gather(teacher.close() for teacher in self._teachers)
