"""The prefix cache: what was run last is found again, however long a search has been going on."""

import torch

from mcts.teachers.local.prefix_cache import BLOCK, Prefix, PrefixCache


def prompt(number: int, length: int = 2 * BLOCK) -> Prefix:
    """A prompt that shares nothing with one of another number."""
    names = tuple(range(1000 * number, 1000 * number + length))
    return Prefix(names, torch.zeros(1, 2, 1, length, 4), torch.zeros(8), 0)


def test_a_full_cache_keeps_the_newest_prompts_and_forgets_the_oldest():
    room = int(3.5 * prompt(0).size)  # what is left over is too small for one more
    cache = PrefixCache(room)
    for number in range(20):
        cache.add(prompt(number))
        assert cache.find(prompt(number).names)[1] == 2 * BLOCK
    kept = [n for n in range(20) if cache.find(prompt(n).names)[0] is not None]
    assert kept == [17, 18, 19]


def test_a_prompt_that_was_used_outlives_one_that_was_not():
    cache = PrefixCache(int(2.5 * prompt(0).size))
    cache.add(prompt(0))
    cache.add(prompt(1))
    cache.find(prompt(0).names)
    cache.add(prompt(2))
    assert cache.find(prompt(0).names)[0] is not None
    assert cache.find(prompt(1).names) == (None, 0)


def test_a_longer_prompt_finds_the_kept_one_it_begins_with():
    cache = PrefixCache(2**20)
    cache.add(prompt(1))
    longer = (*prompt(1).names, *range(7))
    found, shared = cache.find(longer)
    assert found is not None and shared == 2 * BLOCK


def test_a_prompt_larger_than_the_whole_cache_is_not_kept():
    cache = PrefixCache(prompt(0).size - 1)
    cache.add(prompt(0))
    assert cache.find(prompt(0).names) == (None, 0)
