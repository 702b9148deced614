"""Builds that are killed, starved and lied to, and must end as if nothing had happened.

    make chaos-search                            # 200 seeded scenarios
    python -m tests.chaos --scenarios 20 --jobs 2 --json report.json
    python -m tests.chaos --seed 17              # one scenario alone, its files kept

A scenario (`tests.chaos.scenarios`) is a few runs of one `vigorl build` over one warehouse, each
disturbed in its own way: the process dies at a failpoint or by SIGKILL, is stopped by a signal, or
finds the disk full; the model server answers with 429, 500, resets, silence or half an answer, or
dies and comes back, or is not there at all. Then one undisturbed run ends the work, and the
warehouse is compared, row by row, with that of a build that nothing disturbed. The server logs
every request, so that one whose answer was journaled and that is asked again is seen.

Each run is a process of its own, forked from one that has the libraries loaded but has started no
thread and opened no table (`tests.chaos.processes`): 200 scenarios take minutes, not hours.
"""
