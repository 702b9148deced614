"""Policy priors: how likely a teacher says each of the steps that it was asked for.

    policy_priors([-0.2, -0.9])                    # [1.34, 0.66]: the first is a third likelier

A prior is the step's share of its siblings' likelihoods, times their number, so 1 is a step as
likely as they are on average. The likelihood is that of a token in the mean, or every long thought
would be unlikely. `mcts.selection.uct.uct` scales exploration by it, as PUCT does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean


def policy_priors(mean_logprobs: Sequence[float]) -> list[float]:
    """Return the prior of each sibling, from the mean log-probabilities of their tokens in nats."""
    if not mean_logprobs:
        return []
    most = max(mean_logprobs)
    likelihoods = [math.exp(logprob - most) for logprob in mean_logprobs]
    mean = fmean(likelihoods)
    return [likelihood / mean for likelihood in likelihoods]
