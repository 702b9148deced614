"""Draws single-point changes of the core, and says which no test notices.

    make mutants                                   # 20 a package, seed 0: half an hour on two cores
    make mutants ARGS="--seed 7 --packages training --count 40"
    make mutants ARGS="--map"                      # once: which tests reach which line (the suite)

Each change is made in a copy of the tree, never in the tree itself, and the tests that reach its
line are run until one fails. A change that none notices is printed with its place; one that changes
nothing that matters goes into `equivalent.txt` with the reason, and is not drawn again. Without a
map the tests are those that mirror the file's path and name.

Neither mutmut nor cosmic-ray serves: the one runs every change of a file and has no sample, the
other has no tests by line, and neither gives shares with intervals.

Exit status: 0 where at least 90% are noticed and 80% in each package, else 1.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.mutants.coverage_map import CoverageMap
from tests.mutants.draw import Mutant, compiles, mutants_of
from tests.mutants.warm import WarmTests

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / "build" / "mutants.json"
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
PACKAGES = ("mcts", "curation", "warehouse", "training", "flows")
NOTICED, IN_EACH = 0.9, 0.8
MOST_TESTS = 60
"""Most tests that a change is held against; those that mirror its file come first."""
OPTIONS = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--timeout", "90")
PASSED, NO_TESTS = 0, 5
"""As pytest says it by its exit status."""
Groups = tuple[list[str], list[str]]
"""Tests that mirror a file, and others; the others are loaded only where those notice nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one change."""

    mutant: Mutant
    verdict: str
    """noticed, unnoticed, untested (no test reaches it), or undecided (out of time)."""
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    """Draw, run and report; return the exit status."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        if options.map:
            CoverageMap.build(tree, MAP)
            return 0
        covered = CoverageMap.read(MAP)
        if covered is None:
            print("no map of tests by line (--map makes one): tests are chosen by name")
        outcomes: list[Outcome] = []
        drawn = draw(options.packages, options.count, options.seed)
        with WarmTests(tree) as tests:
            for number, mutant in enumerate(drawn, 1):
                outcome = run(tests, tree, mutant, choose(tree, mutant, covered), options.limit)
                outcomes.append(outcome)
                print(
                    f"{number}/{len(drawn)} {outcome.verdict:9} {mutant.file}:{mutant.line} "
                    f"{mutant.kind}: {mutant.change} ({outcome.seconds:.0f} s)",
                    flush=True,
                )
    return report(outcomes)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--packages", nargs="+", default=PACKAGES, choices=PACKAGES)
    parser.add_argument("--count", type=int, default=20, help="changes drawn in each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=240, help="seconds for one change")
    parser.add_argument("--map", action="store_true", help="run the tests once, and store the map")
    return parser.parse_args(arguments)


def copy_tree(to: Path) -> None:
    """Copy every file that git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def draw(packages: tuple[str, ...], count: int, seed: int) -> list[Mutant]:
    """Return a seeded sample of changes, as many of each package, without known equivalents."""
    known = equivalents()
    drawn: list[Mutant] = []
    for package in packages:
        found: list[Mutant] = []
        sources: dict[str, str] = {}
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            sources[name] = path.read_text()
            found += mutants_of(name, sources[name])
        matter = [m for m in found if (m.file, m.change) not in known]
        random.Random(f"{seed} {package}").shuffle(matter)
        valid = (mutant for mutant in matter if compiles(mutant, sources[mutant.file]))
        drawn += islice(valid, count)
    return drawn


def equivalents() -> set[tuple[str, str]]:
    """Return the changes that were read and found to change nothing that matters."""
    found = set()
    for line in EQUIVALENT.read_text().splitlines():
        if line and not line.startswith("#"):
            file, change, reason = line.split(" | ")
            assert reason, line
            found.add((file, change))
    return found


def run(tests: WarmTests, tree: Path, mutant: Mutant, groups: Groups, limit: float) -> Outcome:
    """Make one change in the copy, run its tests, and take it back."""
    path = tree / mutant.file
    source = path.read_text()
    began = time.monotonic()
    code: int | None = NO_TESTS
    path.write_text(mutant.apply(source))
    try:
        for group in filter(None, groups):
            code = tests.run([*OPTIONS, *group], limit - (time.monotonic() - began))
            if code not in (PASSED, NO_TESTS):
                break
    finally:
        path.write_text(source)
    verdict = {PASSED: "unnoticed", NO_TESTS: "untested", None: "undecided"}.get(code, "noticed")
    return Outcome(mutant, verdict, time.monotonic() - began)


def choose(tree: Path, mutant: Mutant, covered: CoverageMap | None) -> Groups:
    """Return the tests to run: those that mirror the file, then others that reach the line."""
    near = mirrored(tree, mutant.file)
    if covered is None or mutant.file not in covered.lines:
        return near, []  # a file that is newer than the map
    source = (tree / mutant.file).read_text()
    reach = [t for t in covered.tests(mutant.file, mutant.line, source)
             if (tree / t.partition("::")[0]).is_file()]  # fmt: skip
    random.Random(mutant.file).shuffle(reach)
    first = [test for test in reach if test.partition("::")[0] in near]
    first.sort(key=lambda test: near.index(test.partition("::")[0]))
    newer = [test for name in near for test in covered.newer(name, (tree / name).read_text())]
    first = [*newer, *first][:MOST_TESTS]
    others = [test for test in reach if test.partition("::")[0] not in near]
    return first, others[: MOST_TESTS - len(first)]


def mirrored(tree: Path, file: str) -> list[str]:
    """Return the test files that mirror a file's path and name, or name its module."""
    path = Path(file)
    folder = tree / "tests" / path.parts[0]
    module = ".".join(path.with_suffix("").parts)
    named = [p for p in sorted(folder.rglob("test_*.py")) if path.stem in p.stem]
    importing = [p for p in sorted((tree / "tests").rglob("test_*.py"))
                 if p not in named and f"{module} import" in p.read_text()]  # fmt: skip
    return [str(p.relative_to(tree)) for p in [*named, *importing]]


def report(outcomes: list[Outcome]) -> int:
    """Print shares with their intervals; return the exit status."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.verdict != "undecided":
            groups[outcome.mutant.file.partition("/")[0]].append(outcome)
            groups["all"].append(outcome)
    undecided = sum(o.verdict == "undecided" for o in outcomes)
    print(f"\n{len(outcomes)} changes, {undecided} undecided in their time")
    enough = True
    for name in sorted(groups, key=lambda name: (name == "all", name)):
        some = groups[name]
        noticed = sum(o.verdict == "noticed" for o in some)
        low, high = wilson(noticed, len(some))
        share = noticed / len(some)
        print(f"{name:10} {noticed}/{len(some)} noticed, {100 * share:.0f}% "
              f"[{100 * low:.0f}, {100 * high:.0f}]")  # fmt: skip
        enough &= share >= (NOTICED if name == "all" else IN_EACH)
    for outcome in outcomes:
        if outcome.verdict in ("unnoticed", "untested"):
            m = outcome.mutant
            print(f"{outcome.verdict} {m.file}:{m.line} {m.kind}: {m.change}")
    return 0 if enough else 1


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson, 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


if __name__ == "__main__":
    sys.exit(main())
