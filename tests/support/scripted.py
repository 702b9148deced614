"""A policy whose answers are written down or computed: the search without any model."""

import hashlib

from mcts.config import SearchConfig
from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind, Image, Question
from mcts.policy import Continuation

IMAGE = Image("f" * 64, 1000, 1000)
QUESTION = Question(
    "sat2", "Is the box left or right?", (IMAGE,), AnswerKind.TEXT, ("left", "right"), ("left",)
)
CONFIG = SearchConfig(space=CoordinateSpace.qwen3_vl())


class ScriptedPolicy:
    """Answers `script[(node, purpose, sample)]`, or what `otherwise` computes; keeps a log."""

    def __init__(self, script=None, otherwise=None, delays=None, logprobs=None):
        self.script, self.otherwise = script or {}, otherwise
        self.delays, self.logprobs = delays, logprobs or {}
        self.log = []

    async def sample(self, node, purpose, steps, n, first=0):
        self.log.append((node, purpose, n, first))
        if self.delays:
            await self.delays(node, purpose)
        samples = []
        for i in range(first, first + n):
            text = self.script.get((node, purpose, i))
            if text is None:
                text = self.otherwise(node, purpose, steps, i)
            if isinstance(text, Exception):
                raise text
            text, reason = text if isinstance(text, tuple) else (text, "stop")
            logprob = self.logprobs.get((node, purpose, i))
            name = f"{node}/{purpose}/{i}"
            samples.append(Continuation(text, reason, name, mean_logprob=logprob))
        return samples


def seeded_teacher(node, purpose, steps, sample):
    """A teacher that is a function of the request: pseudo-random points and answers."""
    draw = hashlib.sha256(f"{node}|{purpose}|{len(steps)}|{sample}".encode()).digest()
    x, y = draw[0] * 1000 // 255, draw[1] * 1000 // 255
    answer = "left" if draw[2] % 3 else "right"
    if purpose in ("answer", "finish"):
        return f"{answer}</answer>"
    think = f"<think>I see a thing at ({x}, {y}).</think>"
    if purpose == "rollout":
        more = f"\n<think>Another at ({1000 - x}, {y}).</think>"
        return f"{think}{more}\n<answer>{answer}</answer>"
    return f"<answer>{answer}</answer>" if draw[3] % 7 == 0 and steps else think
