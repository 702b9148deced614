"""One declaration of a command's parameters, read by the command line and by Prefect alike.

    @takes(BuildSettings)
    def build(settings: BuildSettings) -> None: ...

    app.command()(build)              # vigorl build sat2 --simulations 20 --config run.yaml
    flow(build)                       # prefect deployment run build-traces/sat2 -p simulations=20

The decorated function takes the fields of the settings model one by one: names, types, bounds,
defaults and help are the model's (`flows.settings`), and so is the check of what was given. Later
sources win: the model's defaults, the settings file (`--config`), what was given, `--set`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from flows.settings_base import FieldProblem, Flag, Problem, Settings
from mcts.strict_yaml import YamlProblem, parse_value, parse_yaml

S = TypeVar("S", bound=Settings)
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


# ---- the signature -------------------------------------------------------------------------------


def takes(model: type[Settings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function of a settings model so that it takes the model's fields one by one.

    Further parameters of the function stay as they are.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        first, *own = inspect.signature(function, eval_str=True).parameters.values()
        kept = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        declared = signature_of(model)

        def arguments(given: dict[str, Any]) -> dict[str, Any]:
            rest = {p.name: given.pop(p.name) for p in kept if p.name in given}
            return {first.name: _settings(model, declared, given), **rest}

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def flat(**given: Any) -> Any:
                return await function(**arguments(given))

        else:

            @functools.wraps(function)
            def flat(**given: Any) -> Any:
                return function(**arguments(given))

        parameters = [*declared[:-2], *kept, *declared[-2:]]
        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flat.__annotations__ = {p.name: p.annotation for p in parameters}
        return flat

    return decorate


def signature_of(model: type[Settings]) -> list[inspect.Parameter]:
    """Return a parameter a field, its own before inherited ones; `config` and `set` last.

    A field without a default is optional here, as the settings file may hold it.
    """
    names = [n for cls in model.__mro__ for n in inspect.get_annotations(cls)]
    ordered = [name for name in dict.fromkeys(names) if name in model.model_fields]
    made = [_parameter(name, model.model_fields[name]) for name in ordered]
    for name in ordered:
        for old in flag_of(model.model_fields[name]).former:
            option = typer.Option(_flag(old), hidden=True)
            made.append(_keyword(old, Annotated[str | None, option], None))
    config = typer.Option(help="YAML file with settings.", callback=_remember, metavar="FILE")
    override = typer.Option("--set", help="Wins over all else; repeatable.", metavar="KEY=VALUE")
    made.append(_keyword("config", Annotated[str | None, config], None))
    made.append(_keyword("set", Annotated[list[str] | None, override], None))
    return made


def flag_of(field: FieldInfo) -> Flag:
    """Return how a field is typed on the command line."""
    return next((found for found in field.metadata if isinstance(found, Flag)), Flag())


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = flag_of(field)
    annotation: Any = field.annotation
    known = [t for t in get_args(annotation) if t is not NoneType]
    optional = get_origin(annotation) in (Union, UnionType) and len(known) == 1
    inner: Any = known[0] if optional else annotation
    repeated = get_origin(inner) in (tuple, list)
    given: dict[str, Any] = {"help": _help(field), "metavar": flag.metavar or None}
    if repeated:
        item: Any = get_args(inner)[0]
        annotation = list[item]
        given["metavar"] = flag.metavar or f"<{item.__name__}>"
    elif values := _choices(inner):
        given |= {"parser": str, "metavar": flag.metavar or f"[{'|'.join(values)}]"}
    default = None if field.is_required() or field.default_factory or repeated else field.default
    if isinstance(default, Enum):
        default = default.value
    if flag.positional:
        info = typer.Argument(**{**given, "metavar": flag.metavar or name.upper()})
    else:
        info = typer.Option(*(flag.names or ((_flag(name),) if inner is bool else ())), **given)
    bounds = [found for found in field.metadata if not isinstance(found, Flag)]
    if default is None:
        annotation = annotation | None
    return _keyword(name, Annotated[(annotation, *bounds, info)], default)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _choices(type_: Any) -> list[str]:
    if get_origin(type_) is Literal:
        return [str(value) for value in get_args(type_)]
    if isinstance(type_, type) and issubclass(type_, Enum):
        return [str(member.value) for member in type_]
    return []


def _help(field: FieldInfo) -> str:
    """Return the field's description as a sentence, with its bounds as click writes them."""
    text = field.description or ""
    bounds = [
        f"x{sign}{value:g}"
        for found in field.metadata
        for name, sign in _BOUNDS.items()
        if (value := getattr(found, name, None)) is not None
    ]
    shown = f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
    return f"{shown}  [{', '.join(bounds)}]" if bounds else shown


# ---- the values ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _CommandLine:
    """Value of `--config` at a command line, and which other options were given there."""

    config: str | None
    context: typer.Context

    def has(self, name: str) -> bool:
        source = self.context.get_parameter_source(name)
        return source is not None and source.name != "DEFAULT"


def _remember(context: typer.Context, value: str | None) -> _CommandLine:
    return _CommandLine(value, context)


def _settings(model: type[S], declared: Sequence[inspect.Parameter], given: dict[str, Any]) -> S:
    """Return the settings of one call.

    Prefect fills all parameters in: without a command line, what equals a default was not given.
    """
    defaults = {parameter.name: parameter.default for parameter in declared}
    config, overrides = given.pop("config", None), given.pop("set", None) or ()
    if isinstance(config, _CommandLine):
        line, config = config, config.config
        given = {name: value for name, value in given.items() if line.has(name)}
    else:
        given = {name: value for name, value in given.items() if value != defaults[name]}
    return resolve_settings(model, given, config, overrides)


def resolve_settings(
    model: type[S],
    given: Mapping[str, Any],
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> S:
    """Merge a settings file, given values and `key=value` overrides over the model's defaults.

    Args:
        config: YAML; its keys are fields, or the command's name with its fields beneath. Also the
            `params` of a row of `runs`.
        overrides: dotted keys reach into nested values; they win over all else.

    Raises:
        Problem: the file, a key or a value is wrong; the sentence says where.
    """
    values, places = read_config(model, Path(config)) if config else ({}, {})
    named: dict[str, str] = {}
    for name, value in given.items():
        key = _current(model, name, _flag(name))
        if other := named.get(key):
            raise Problem(f"{_flag(other)} and {_flag(name)} are one setting: give one of them")
        named[key] = name
        values[key] = value
        places.pop(key, None)
    for text in overrides:
        name, equals, value = text.partition("=")
        first, *path = name.strip().split(".")
        place = f"--set {text}"
        if not equals:
            raise Problem(f"{place}: it is not of the form key=value")
        key = _current(model, first, place)
        _put(values, [key, *path], parse_value(value), place)
        places[key] = place
    try:
        return model.checked(**values)
    except FieldProblem as error:
        if error.field not in places:
            raise
        raise Problem(f"{places[error.field]}: {error}") from None


def read_config(model: type[Settings], path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a settings file: values by field, and where each stands (`run.yaml, line 3`)."""
    try:
        root, values = parse_yaml(path.read_text("utf-8"), str(path))
        if isinstance(values, dict) and isinstance(stored := values.get("params"), str):
            root, values = parse_yaml(stored, f"{path}: params")  # a row of `runs`, as JSON
        if isinstance(values, dict) and isinstance(settings := values.get("settings"), dict):
            root = next(inner for key, inner in root.value if key.value == "settings")
            values = settings
    except OSError as error:
        raise Problem(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Problem(f"{path}: it is no text in UTF-8") from None
    except YamlProblem as problem:
        raise Problem(str(problem)) from None
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise Problem(f"{path}: a settings file holds keys with values")
    sections = {kind.command for kind in _models()}
    given: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value in root.value:
        name, place = str(key.value), f"{path}, line {key.start_mark.line + 1}"
        inside = values.get(name)
        if name in sections and (name not in model.model_fields or isinstance(inside, dict)):
            if not isinstance(inside, dict | None):
                raise Problem(f"{place}: {name} must hold keys with values")
            if name == model.command and inside:
                for inner, _ in value.value:
                    at = f"{path}, line {inner.start_mark.line + 1}"
                    field = _current(model, str(inner.value), at)
                    given[field], places[field] = inside[inner.value], at
            continue
        field = _current(model, name, place)
        if name != field and field in values:
            raise Problem(f"{place}: {name} and {field} are one setting: give one of them")
        if field not in places:  # the command's own section wins
            given[field], places[field] = inside, place
    return given, places


def _models(above: type[Settings] = Settings) -> list[type[Settings]]:
    """List every settings model there is."""
    return [above, *(cls for sub in above.__subclasses__() for cls in _models(sub))]


def _current(model: type[Settings], name: str, place: str) -> str:
    """Return the field that `name` means; a former name is answered with the one it has now.

    Raises:
        Problem: there is no such field.
    """
    if name in model.model_fields:
        return name
    for field, info in model.model_fields.items():
        if name in flag_of(info).former:
            where = (
                "" if place.startswith("--") and not place.startswith("--set ") else f"{place}: "
            )
            shown = (_flag(name), _flag(field)) if not where else (name, field)
            print(f"{where}{shown[0]} is called {shown[1]} now", file=sys.stderr)
            return field
    close = difflib.get_close_matches(name, model.model_fields, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise Problem(f"{place}: {name} is no setting of `vigorl {model.command}`{hint}")


def _put(values: dict[str, Any], path: Sequence[str], value: Any, place: str) -> None:
    *above, last = path
    for name in above:
        inner = values.get(name)
        inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise Problem(f"{place}: {name} has no keys")
        values[name] = dict(inner)
        values = values[name]
    values[last] = value
