"""Stages of a claim's experiment: each runs once, and after those it needs."""

import sys

import pytest

from vigorl_nano.claims.stages import Experiment, Runner, Stage, StageFailed

OUTCOME = (
    "import json, pathlib, sys; path = pathlib.Path(sys.argv[1]);"
    "path.parent.mkdir(exist_ok=True); path.write_text(json.dumps({'seconds': 1}));"
    "print(sys.argv[1], file=open(path.parent.parent / 'ran', 'a'))"
)


PLAN = [Stage("a", ()), Stage("b", ("a",)), Stage("c", ("b",)), Stage("d", ())]


def runner(tmp_path, failing=()):
    experiment = Experiment(tmp_path, None)

    def command(stage):
        if stage.name in failing:
            return [sys.executable, "-c", "import sys; sys.exit('it is broken')"]
        return [sys.executable, "-c", OUTCOME, str(experiment.file(stage.name))]

    return Runner(experiment, 2, command)


def ran(tmp_path):
    return [line.rpartition("/")[2][0] for line in (tmp_path / "ran").read_text().splitlines()]


def test_a_stage_runs_once_and_after_those_it_needs(tmp_path):
    runner(tmp_path).run(PLAN)
    order = ran(tmp_path)
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order.index("a") < order.index("b") < order.index("c")
    runner(tmp_path).run(PLAN)
    assert len(ran(tmp_path)) == 4


def test_what_needs_a_failed_stage_waits_and_the_rest_goes_on(tmp_path, capfd):
    with pytest.raises(StageFailed, match="failed: b"):
        runner(tmp_path, failing={"b"}).run(PLAN)
    assert sorted(ran(tmp_path)) == ["a", "d"]
    assert "it is broken" in capfd.readouterr().err
    runner(tmp_path).run(PLAN)
    assert sorted(ran(tmp_path)) == ["a", "b", "c", "d"]
