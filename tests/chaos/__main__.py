"""Run scenarios in parallel and print one report; exit status 1 if anything failed.

    python -m tests.chaos --scenarios 200 --jobs 2

Failing scenarios are listed by their seeds, and their files are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos import processes
from tests.chaos.runner import play, prepare
from tests.chaos.scenarios import scenario


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Builds under seeded faults.")
    parser.add_argument("--scenarios", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first scenario's seed")
    parser.add_argument(
        "--seed", type=int, nargs="+", help="only these scenarios; of one alone the files are kept"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the report to this file as well")
    options = parser.parse_args()
    seeds = list(range(options.first, options.first + options.scenarios))
    seeds = options.seed or seeds
    start, keep = time.monotonic(), len(seeds) == 1
    processes.load()
    folder = Path(tempfile.mkdtemp(prefix="vigorl-chaos-"))
    prepare(folder, {scenario(seed).search for seed in seeds})
    jobs = max(1, min(options.jobs, len(seeds)))
    for job in range(jobs):
        mine, lines = seeds[job::jobs], folder / f"outcomes-{job}.jsonl"

        def work(mine: list[int] = mine, lines: Path = lines) -> None:
            for seed in mine:
                with lines.open("a") as file:
                    file.write(play(scenario(seed), folder, keep).line() + "\n")

        processes.fork(work, folder / f"job-{job}.txt")
    statuses = [os.wait()[1] for _ in range(jobs)]
    report = _report(folder, time.monotonic() - start)
    if any(statuses) or report["scenarios"] != len(seeds):
        print(f"the harness itself failed: see {folder}/job-*.txt", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    bad = report["failing seeds"]
    if not bad and not keep:
        shutil.rmtree(folder)
    else:
        print(f"files: {folder}", file=sys.stderr)
    return 1 if bad else 0


def _report(folder: Path, seconds: float) -> dict:
    """Sum up the outcomes and print them."""
    outcomes = [
        json.loads(line)
        for path in sorted(folder.glob("outcomes-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome["faults"])
    bad = [o for o in outcomes if o["lost"] or o["differing"] or o["duplicates"] or o["problems"]]
    report = {
        "scenarios": len(outcomes),
        "faults injected": sum(faults.values()),
        "lost trees": sum(o["lost"] for o in outcomes),
        "duplicate requests of journaled responses": sum(o["duplicates"] for o in outcomes),
        "differing trees": sum(o["differing"] for o in outcomes),
        "other failures": sum(len(o["problems"]) for o in outcomes),
        "slowest stop, s": round(max((o["slowest_stop_s"] for o in outcomes), default=0.0), 2),
        "seconds": round(seconds, 1),
    }
    for name, value in report.items():
        print(f"{name:<42} {value:>8}")
    print("faults: " + ", ".join(f"{n} {kind}" for kind, n in sorted(faults.items())))
    for outcome in sorted(bad, key=lambda o: o["seed"]):
        details = {k: v for k, v in outcome.items() if v and k not in ("faults", "slowest_stop_s")}
        print(f"FAILED: python -m tests.chaos --seed {outcome['seed']}   {details}")
    return report | {"faults": dict(faults), "failing seeds": [o["seed"] for o in bad]}


if __name__ == "__main__":
    sys.exit(main())
