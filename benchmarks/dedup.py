"""Time and memory of finding near-duplicates among many traces.

    python -m benchmarks.dedup                  # 100,000 synthetic traces
    python -m benchmarks.dedup --traces 20000
    python -m benchmarks.dedup --daft           # beside the MinHash of Daft (pip install daft)

A tenth of them are copies of an earlier trace with up to three words changed. In `one` all are
about one image, so that each may be compared with every other; `many` spreads them over a thousand
images; `template` is about one image again, and half of every trace is the same in all of them.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec

from curation.filters.dedup import Document, find_copies
from curation.filters.minhash import BANDS, ROWS, SEED, WIDTH

_RARE = [f"word{i}" for i in range(3000)]
_COMMON = [f"common{i}" for i in range(16)]


def synthetic_traces(n: int, images: int, template: bool, seed: int = 0) -> list[Document]:
    """Generate traces of five steps of seventeen words, a function of the arguments."""
    rng = random.Random(seed)
    documents: list[Document] = []
    for i in range(n):
        image_ids: tuple[str, ...] = (f"image{rng.randrange(images)}",)
        words: list[str] = []
        if i % 10 == 9:
            earlier = documents[rng.randrange(len(documents))]
            image_ids, words = earlier.images, earlier.text.split()
            for _ in range(rng.randrange(4)):
                words[rng.randrange(len(words))] = rng.choice(_RARE)
        else:
            for _ in range(5):
                words += [f"@0:{rng.randrange(32)}:{rng.randrange(32)}"]
                words += _COMMON if template else rng.choices(_RARE, k=16)
                words += rng.choices(_RARE, k=8 if template else 0)
        name = f"{rng.getrandbits(128):032x}"
        documents.append(Document(name, "direct", "left", image_ids, " ".join(words)))
    return documents


def daft_signatures(documents: list[Document]) -> int:
    """Have Daft make as many hashes of each text as `find_copies` compares; nothing more."""
    import daft

    texts = daft.from_pydict({"text": [one.text for one in documents]})
    hashes = daft.col("text").minhash(num_hashes=BANDS * ROWS, ngram_size=WIDTH, seed=SEED)
    return int(texts.select(hashes).collect().count_rows())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--daft", action="store_true", help="time Daft's MinHash as well")
    arguments = parser.parse_args()
    if arguments.daft and not find_spec("daft"):
        parser.error("--daft: pip install daft")
    n = arguments.traces
    print(f"{'':<10}{'traces':>9}{'copies':>15}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}")
    for name, images, template in (
        ("many", 1000, False),
        ("one", 1, False),
        ("template", 1, True),
    ):
        documents = synthetic_traces(n, images, template)
        _time(name, documents, lambda documents: str(len(find_copies(documents))))
        if arguments.daft:
            _time("  daft", documents, lambda documents: f"{daft_signatures(documents)} hashed")


def _time(name: str, documents: list[Document], work: Callable[[list[Document]], str]) -> None:
    start, worked = time.perf_counter(), time.process_time()
    found = work(documents)
    wall, cpu = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:<10}{len(documents):>9}{found:>15}{cpu:>9.1f}{wall:>9.1f}{peak:>9.0f}", flush=True
    )


if __name__ == "__main__":
    main()
