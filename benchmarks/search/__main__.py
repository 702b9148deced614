"""`make bench-search`: the search engine's speed-ups, as ratios of measurements made here.

    python -m benchmarks.search  # minutes; virtual time, processor time, memory
    python -m benchmarks.search --quick                  # a small slice of it, in seconds
    python -m benchmarks.search --nano  # and the embedded teacher: search or best-of-n
    python -m benchmarks.search --server URL --space qwen2.5-vl  # only a real server's share
    python -m benchmarks.search --server vllm-cpu:nano               # ... of one that it starts
    python -m benchmarks.search --json FILE              # also writes the rows to a file

Figures on the virtual clock are exact and run once: they come out the same every time. Where time
is real, the median of at least five runs is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.search.compare_orders import (
    REFERENCE_AT_ONCE,
    ROOM,
    alone,
    config,
    reference,
    released,
    right_share,
    search_all,
    total,
)
from benchmarks.search.overhead import cpu_over_http, cpu_per_request, memory
from benchmarks.search.scripted_model import questions

NO_TARGETS = (None, None, None)
LEGEND = f"""\
Faster: than the reference's order ({REFERENCE_AT_ONCE} trees at once, one request each) at equal
simulations on the same scripted server. Its time is virtual and exact, so each is run once. As
released: without prefix cache, and the image encoded for every call.
"""


def against_the_reference(n: int) -> Iterator[Row]:
    """Compare our order and the reference's: `n` questions on the same virtual server."""
    sample = questions(n)
    theirs, as_released = reference(sample, config()), released(sample, config())
    for wave, trees, targets in (
        (4, 64, (10.0, 1.0, 0.9)),
        (1, 64, NO_TARGETS),
        (1, 32, NO_TARGETS),
    ):
        ours = search_all(sample, config(wave), trees)
        name = f"{n} questions, waves of {wave}, {trees} trees at once: faster"
        yield Row(name, theirs.seconds / ours.seconds, at_least=targets[0])
        share = ours.right_per_mtok / theirs.right_per_mtok
        yield Row("  right traces per generated token", share, at_least=targets[1])
        yield Row("  of the bound that no schedule of its requests, known in advance, can beat",
                  ours.fastest / ours.seconds, at_least=targets[2])  # fmt: skip
        yield Row("  prompt tokens found in the prefix cache", ours.hit_rate)
        yield Row("  faster than the reference as released", as_released.seconds / ours.seconds)


def single_trees(n: int) -> Iterator[Row]:
    """Compare single trees, each alone on the server: the mean over `n` of them.

    They prefetch as a build with one question does, or not at all.
    """
    sample = questions(n)
    theirs = alone(partial(reference, settings=config()), sample)
    as_released = total(alone(partial(released, settings=config()), sample))
    for wave, room, targets in (
        (1, ROOM, (5.0, 1.0)),
        (4, ROOM, (10.0, 1.0)),
        (1, 1, NO_TARGETS),
        (4, 1, NO_TARGETS),
    ):
        ours = alone(partial(search_all, settings=config(wave), at_once=room), sample)
        sums, others = total(ours), total(theirs)
        prefetch = "" if room > 1 else ", without prefetch"
        name = f"a single tree (mean of {n}), waves of {wave}{prefetch}: faster"
        yield Row(name, others.seconds / sums.seconds, at_least=targets[0])
        low, high = right_share(ours, theirs)
        share = sums.right_per_mtok / others.right_per_mtok
        name = f"  right traces per generated token ({low:.2f} .. {high:.2f}, 19 in 20)"
        yield Row(name, share, at_least=targets[1])
        yield Row("  faster than the reference as released", as_released.seconds / sums.seconds)


def engine(trees: int, runs: int) -> Iterator[Row]:
    """Measure the engine's own cost."""
    found = statistics.median(cpu_per_request(64, runs=runs))
    yield Row(f"processor time per request, 64 trees at once (median of {runs})", found, "ms",
              at_most=1.0)  # fmt: skip
    found = statistics.median(cpu_over_http(64, runs=runs, simulations=4))
    yield Row("  with the HTTP client, and an image of 200 KB in every request", found, "ms")
    held = memory(trees)
    yield Row(
        f"memory over {held.trees} trees, {held.requests} requests: maximum", held.max_mb, "MB"
    )
    yield Row("  growth per thousand trees", held.slope_mb, "MB", at_most=0.5)


def table(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the selected rows, each as soon as it is measured."""
    if arguments.server:
        from benchmarks.search.real_server import against_itself

        yield from against_itself(
            arguments.server, arguments.space, arguments.model, arguments.limit, arguments.runs
        )
        return
    quick = arguments.quick
    yield from against_the_reference(8 if quick else 64)
    yield from single_trees(2 if quick else 128)
    yield from engine(300 if quick else 10_000, arguments.runs)
    if arguments.nano:
        from benchmarks.search.search_vs_best_of_n import search_or_sample

        yield from search_or_sample(arguments.limit, arguments.runs)


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status is 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a small slice, in seconds")
    parser.add_argument("--nano", action="store_true", help="also the embedded teacher (minutes)")
    parser.add_argument("--server", help="URL, vllm:MODEL or vllm-cpu:MODEL: only that one")
    parser.add_argument("--space", help="coordinate space of its model, such as qwen2.5-vl")
    parser.add_argument("--model", help="model to request; its first by default")
    parser.add_argument("--limit", type=int, default=24, help="questions with --nano, --server")
    parser.add_argument("--runs", type=int, default=5, help="runs where time is real")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args(argv)
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    if not arguments.server:
        print(LEGEND)
    rows = []
    for row in table(arguments):
        rows.append(row)
        print(row.line(), flush=True)
    if arguments.json:
        report = [{**asdict(row), "verdict": row.verdict} for row in rows]
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
