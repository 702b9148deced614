"""Builds under seeded faults, which must end as if nothing had happened.

    make chaos-search                            # 200 seeded scenarios
    python -m tests.chaos --scenarios 20 --jobs 2 --json report.json
    python -m tests.chaos --seed 17              # one scenario alone, its files kept

A scenario (`tests.chaos.scenarios`) is a few runs of one `vigorl build` on one warehouse, each with
faults: the process dies at a failpoint or by SIGKILL, is stopped by a signal, or finds the disk
full; the model server answers with 429, 500, resets, silence or half an answer, or dies and comes
back, or is absent. Then a run without faults completes the work, and the warehouse is compared, row
by row, with that of a build without any faults. The server logs every request, so that a repeated
request whose answer was journaled is detected.

Each run is a process of its own, forked from one that has loaded the libraries but has no threads
and no open tables (`tests.chaos.processes`): 200 scenarios take minutes, not hours.
"""
