"""How a command's settings are declared: fields with a type, bounds, a default, and their help.

    class BuildSettings(Settings):
        command = "build"
        limit: int | None = option(None, "most questions; all when left out", ge=1)

    BuildSettings.checked(limit=0)       # Problem: one sentence that names the field

`flows.settings` declares every command's; `flows.parameters` makes flags and Prefect parameters of
them.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows import server_options
from mcts.names import wrong_name


class Problem(Exception):
    """Something the user can correct, in one sentence; commands exit with status 2."""


class FieldProblem(Problem):
    """A `Problem` with the value of one field."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence}")
        self.field = field


class Flag(NamedTuple):
    """How a field is typed on the command line, where that doesn't follow from its name."""

    names: tuple[str, ...] = ()
    """The flag, with its dashes."""
    positional: bool = False
    metavar: str = ""
    former: tuple[str, ...] = ()
    """Names the field had before; they still work, and stderr names the new one."""


POSITIONAL = Flag(positional=True)


def option(default: Any, description: str, **constraints: Any) -> Any:
    """Declare a field: its default (`...` for none), its help with the unit, its bounds."""
    return Field(default, description=description, **constraints)


class Settings(BaseModel):
    """Base class: frozen; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    command: ClassVar[str] = ""
    """What is typed after `vigorl`; also its section in a settings file."""

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Make the settings.

        Raises:
            Problem: a field is bad, or fields contradict each other.
        """
        try:
            settings = cls(**values)
        except ValidationError as error:
            field, kind, reason = server_options.first_problem(error)
            if kind == "missing":
                reason = (
                    f"it is missing; give it to `vigorl {cls.command}`, or in its settings file"
                )
            raise FieldProblem(field, reason) from None
        for field in ("task", "benchmark", "into"):
            if wrong := wrong_name("task", getattr(settings, field, None)):
                raise FieldProblem(field, wrong)
        settings.check()
        return settings

    def check(self) -> None:
        """Compare fields with each other.

        Raises:
            Problem: they contradict each other.
        """

    def only_for(self, what: str, here: object, fields: str) -> None:
        """Refuse `fields`, separated by spaces, where they are given and `here` is false.

        What nothing uses would still be kept with the run, and may name its results anew.

        Raises:
            FieldProblem: one of them has another value than its default.
        """
        for field in fields.split():
            if not here and getattr(self, field) != type(self).model_fields[field].default:
                raise FieldProblem(field, f"only for {what}")

    def params(self) -> dict[str, Any]:
        """Return the settings as `runs.params` keeps them and `--config` reads them; no secrets."""
        return dict(server_options.without_secrets(self.model_dump(mode="json")))
