"""Parameters are declared once: flags, Prefect parameters and settings files come of one model."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, get_args

import pytest
import typer
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from flows import dataset_settings
from flows import settings as all_settings
from flows.cli import app as cli
from flows.parameters import resolve_settings, signature_of, takes
from flows.settings import (
    BuildSettings,
    CurateSettings,
    DpoSettings,
    EvaluateSettings,
    GallerySettings,
    GrpoSettings,
    JudgeSettings,
    PrmSettings,
    ServeSettings,
    SftSettings,
    TeacherSettings,
)
from flows.settings_base import Problem, Settings
from flows.stages import build as stages
from tests.flows.test_cli import run
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

Built = tuple[Path, set[str]]
PACKAGES = ("mcts", "curation", "warehouse", "training", "flows")
FLOWS = {
    "build_traces": BuildSettings,
    "curate_traces": CurateSettings,
    "judge_traces": JudgeSettings,
    "evaluate_model": EvaluateSettings,
    "train_sft": SftSettings,
    "train_dpo": DpoSettings,
    "train_prm": PrmSettings,
    "train_grpo": GrpoSettings,
}
PROJECT = Path(__file__).resolve().parents[2]


def commands(group: Any = None, above: str = "") -> dict[str, Any]:
    """Every command by what is typed after `vigorl`."""
    group = group or typer.main.get_command(cli.app)
    found = {}
    for name, command in group.commands.items():
        full = f"{above}{name}"
        found |= commands(command, f"{full} ") if hasattr(command, "commands") else {full: command}
    return found


DECLARED = {**vars(all_settings), **vars(dataset_settings)}
MODELS = [m for m in DECLARED.values() if isinstance(m, type) and hasattr(m, "command")]
MODELS = [model for model in MODELS if issubclass(model, Settings) and model.command]


def call(model: type[Settings], *arguments: str) -> Settings:
    """The settings that a command of `model` gets from these arguments."""
    got: list[Settings] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @takes(model)
    def command(settings: Settings) -> None:
        got.append(settings)

    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return got[0]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.command)
def test_every_field_is_a_parameter_of_its_command_with_its_help(model: type[Settings]) -> None:
    parameters = {p.name: p for p in commands()[model.command].params}
    for name, field in model.model_fields.items():
        assert field.description, f"{name} has no description"
        assert parameters[name].help.casefold().startswith(field.description.casefold()[:20])
    assert {"config", "set"} <= set(parameters)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_takes_the_fields_with_their_bounds(name: str) -> None:
    model, flow = FLOWS[name], getattr(importlib.import_module(f"flows.{name}"), name)
    parameters = inspect.signature(flow.fn).parameters
    assert set(parameters) >= {*model.model_fields, "config", "set"}
    schema = flow.parameters.model_dump()["properties"]
    for field, info in model.model_fields.items():
        kinds = [schema[field], *schema[field].get("anyOf", [])]
        for constraint in info.metadata:
            for bound, key in (("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum")):
                if (value := getattr(constraint, bound, None)) is not None:
                    assert any(kind.get(key) == value for kind in kinds), (field, kinds)


MAY_BE_NEGATIVE = ("seed", "policy_prior")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.command)
def test_no_number_may_be_negative(model: type[Settings]) -> None:
    for name, info in model.model_fields.items():
        kinds = {info.annotation, *get_args(info.annotation)}
        if name not in MAY_BE_NEGATIVE and {int, float} & kinds:
            checked = TypeAdapter(Annotated[info.annotation, *info.metadata, name])
            with pytest.raises(ValidationError):
                checked.validate_python(-1)


def test_a_command_line_is_read_by_the_types_of_the_model() -> None:
    built = call(BuildSettings, "sat2", "--limit", "3", "--top-p", ".5", "--retry-failed")
    assert isinstance(built, BuildSettings)
    assert (built.task, built.limit, built.top_p, built.retry_failed) == ("sat2", 3, 0.5, True)
    assert built == BuildSettings(task="sat2", limit=3, top_p=0.5, retry_failed=True)
    served = call(ServeSettings, "m", "--", "--dtype", "half")
    assert isinstance(served, ServeSettings) and served.extra == ("--dtype", "half")
    trained = call(GrpoSettings, "r", "-o", "steps=2", "-o", "seed=1")
    assert isinstance(trained, GrpoSettings) and trained.override == ("steps=2", "seed=1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "task: it is missing; give it to `vigorl build`"),
        (("sat2", "--limit", "0"), r"limit: .*greater than or equal to 1 \(it was 0\)"),
        (
            ("sat2", "--strategy", "beam"),
            "strategy: Input should be 'mcts', 'best-of-n', 'linear' or 'auto'",
        ),
        (("sat2", "--set", "simulatons=3"), "simulatons is no setting .*did you mean simulations"),
        (("sat2", "--set", "seed"), "--set seed: it is not of the form key=value"),
        (("sat2", "--set", "limit=0"), "--set limit=0: limit: .*greater than or equal to 1"),
    ],
)
def test_a_bad_value_is_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(Problem, match=sentence):
        call(BuildSettings, *arguments)


def test_pass_at_samples_training_questions() -> None:
    measured = EvaluateSettings.checked(model="m", benchmark="sat2", pass_at=8)
    assert (measured.samples, measured.temperature, measured.split) == (8, 1.0, "train")
    chosen = {"temperature": 0.7, "split": "validation"}
    measured = EvaluateSettings.checked(model="m", benchmark="sat2", pass_at=8, **chosen)
    assert (measured.samples, measured.temperature, measured.split) == (8, 0.7, "validation")
    again = EvaluateSettings.checked(**measured.params())
    assert again == measured, "what is recorded gives the same run"
    with pytest.raises(Problem, match="pass_at and samples: give one of them"):
        EvaluateSettings.checked(model="m", benchmark="sat2", pass_at=8, samples=4)


def test_a_former_name_works_and_says_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = resolve_settings(EvaluateSettings, {"model": "m", "benchmark": "b", "form": "answers"})
    assert found.response_style == "answer_only"
    assert "--form is called --response-style now" in capsys.readouterr().err
    assert "form" in {p.name for p in commands()["evaluate"].params}


@pytest.mark.parametrize("place", ["file", "--set"])
def test_a_former_name_in_a_file_or_behind_set_says_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    given = {"model": "m", "benchmark": "b"}
    if place == "file":
        file = tmp_path / "run.yaml"
        file.write_text("\nform: answers\n")
        found = resolve_settings(EvaluateSettings, given, config=file)
        where = f"{file}, line 2"
    else:
        found = resolve_settings(EvaluateSettings, given, overrides=["form=answers"])
        where = "--set form=answers"
    assert found.response_style == "answer_only"
    assert capsys.readouterr().err == f"{where}: form is called response_style now\n"


def test_what_a_function_takes_beside_its_settings_is_handed_on() -> None:
    got: list[tuple[Any, ...]] = []

    @takes(GallerySettings)
    def command(settings: GallerySettings, extra: int = 3, other: str = "x") -> None:
        got.append((settings.limit, extra, other))

    command(limit=5, extra=4)
    command()
    assert got == [(5, 4, "x"), (500, 3, "x")]


def test_a_parameter_says_what_it_is_typed_as() -> None:
    shown = {p.name: p for p in commands()["build"].params}
    assert shown["strategy"].metavar == "[mcts|best-of-n|linear|auto]"
    assert shown["headers"].metavar == "NAME=VALUE"
    assert shown["simulations"].metavar is None and shown["task"].metavar == "TASK"


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("task: sat2\nsimulations: 20\nchildren: 4\nwave: 2\nseed: 3\n")
    found = call(
        BuildSettings, "--config", str(file), "--children", "3", "--wave", "5", "--set", "wave=6"
    )
    assert isinstance(found, BuildSettings)
    assert (found.rollouts, found.simulations, found.seed) == (2, 20, 3)
    assert found.children == 3, "a flag wins over the file, also where it is the default"
    assert found.wave == 6


def test_one_file_serves_several_commands(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("task: sat2\nbuild:\n  limit: 5\ncurate:\n  publish: kept\njudge:\n  n: 1\n")
    assert resolve_settings(BuildSettings, {}, file) == BuildSettings(task="sat2", limit=5)
    assert resolve_settings(CurateSettings, {}, file) == CurateSettings(task="sat2", publish="kept")
    file.write_text("judge: http://gpu:8000\ntask: sat2\n")
    assert resolve_settings(JudgeSettings, {}, file).judge == "http://gpu:8000"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("task: sat2\nlimt: 3", "run.yaml, line 2: limt is no setting of `vigorl build`; did you"),
        ("task: sat2\n\nlimit: few", "run.yaml, line 3: limit: Input should be a valid integer"),
        ("task: sat2\nbuild:\n  seed: -1", "run.yaml, line 3: seed: Input should be greater"),
        ("a: [1", "run.yaml, line 1: "),
        ("- a", "run.yaml: a settings file holds keys with values"),
    ],
)
def test_a_wrong_file_is_a_sentence_with_line_and_key(
    text: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(Problem, match=sentence) as caught:
        resolve_settings(BuildSettings, {}, tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(Problem, match="No such file"):
        resolve_settings(BuildSettings, {}, tmp_path / "none.yaml")


def test_prefect_fills_defaults_in_and_the_file_still_counts(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("simulations: 20\nteacher: http://gpu\n")
    every = {p.name: p.default for p in signature_of(BuildSettings)}

    @takes(BuildSettings)
    async def flow(settings: BuildSettings) -> BuildSettings:
        return settings

    found = asyncio.run(flow(**every | {"task": "sat2", "limit": 3, "config": str(file)}))
    assert (found.task, found.limit, found.simulations) == ("sat2", 3, 20)
    assert found.teacher == "http://gpu"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """A home with a build of one question, and the files that its settings passed through."""
    folder = tmp_path_factory.mktemp("parameters")
    home, passed = folder / "home", set()
    sample = write_sat(folder / "SAT_train.parquet", sat_rows(1))
    assert run("import", "sat2", sample, "--limit", 1, home=home) == 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(str(PROJECT)):
            return
        names = frame.f_code.co_varnames[
            : frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        ]
        if any(isinstance(frame.f_locals.get(name), TeacherSettings) for name in names):
            passed.add(str(Path(frame.f_code.co_filename).relative_to(PROJECT)))

    with StubServer() as server:
        typed = ["build", "sat2", "--teacher", server.url, "--space", "qwen3-vl"]
        typed += ["--simulations", "1", "--seed", "7"]
        sys.setprofile(watch)
        try:
            assert run(*typed, home=home) == 0
        finally:
            sys.setprofile(None)
        yield home, passed


def test_a_builds_settings_pass_through_few_files(
    built: Built,
) -> None:
    _, passed = built
    product = {name for name in passed if name.partition("/")[0] in PACKAGES}
    assert product == {
        "flows/cli/build.py", "flows/settings.py", "flows/settings_base.py",
        "flows/stages/build.py", "flows/stages/search.py", "flows/stages/shards/elsewhere.py",
        "flows/stages/shards/worker.py", "flows/teachers/resolve.py",
        "flows/teachers/response_styles.py", "flows/teachers/trained.py",
        "flows/search_settings.py",
    }  # fmt: skip


def test_a_runs_settings_give_the_same_run_again(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = built
    capsys.readouterr()
    statement = "SELECT params FROM runs WHERE kind = 'build'"
    assert run("sql", statement, "--format", "json", home=home) == 0
    printed = capsys.readouterr().out
    (tmp_path / "row.json").write_text(printed)
    (tmp_path / "value.json").write_text(json.loads(printed)["params"])
    first = resolve_settings(BuildSettings, {}, tmp_path / "row.json")
    assert first == resolve_settings(BuildSettings, {}, tmp_path / "value.json")
    assert (first.task, first.seed, first.simulations) == ("sat2", 7, 1)
    summary = asyncio.run(stages.build(first))
    assert (summary.requests, summary.trees) == (0, 1), "the tree is there already"
    runs = query(Warehouse(str(home)), statement)["params"].to_pylist()
    assert len(runs) == 2 and runs[0] == runs[1]


def test_an_imports_settings_are_recorded_too(built: Built, tmp_path: Path) -> None:
    statement = "SELECT params FROM runs WHERE kind = 'import'"
    (params,) = query(Warehouse(str(built[0])), statement)["params"].to_pylist()
    (tmp_path / "run.yaml").write_text(params)
    found = resolve_settings(all_settings.ImportSettings, {}, tmp_path / "run.yaml")
    assert (found.task, found.limit) == ("sat2", 1)


def test_a_setting_under_both_its_names_is_refused(tmp_path) -> None:
    given = {"form": "grounded", "response_style": "ungrounded"}
    with pytest.raises(Problem, match="--form and --response-style are one setting"):
        resolve_settings(EvaluateSettings, given)
    file = tmp_path / "run.yaml"
    file.write_text("form: grounded\nresponse_style: ungrounded\n")
    with pytest.raises(Problem, match="form and response_style are one setting"):
        resolve_settings(EvaluateSettings, {}, file)


def test_an_empty_section_holds_no_settings_and_a_list_is_named(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("task: sat2\nbuild:\n")
    assert resolve_settings(BuildSettings, {}, file).task == "sat2"
    file.write_text("task: sat2\nbuild: [a]\n")
    with pytest.raises(Problem, match="line 2: build must hold keys with values"):
        resolve_settings(BuildSettings, {}, file)
