"""Checks of the settings about a server: key, headers, body fields, capabilities.

    checked_headers({"x-team": "$TEAM"})          # ("x-team=$TEAM",): as settings keep them
    checked_body(('provider={"order": ["a"]}',))  # ("provider={\"order\": [\"a\"]}",)
    parsed_body(settings.body)                    # {"provider": {"order": ["a"]}}

Settings are stored with every run, so they hold the names of environment variables and never a
secret. A refusal here never repeats what was given, as that may be one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from mcts.strict_yaml import shorten
from mcts.teachers.capabilities import parse_capabilities
from mcts.teachers.credentials import CredentialProblem, check_header, mask_url


class Unshown(ValueError):
    """What was given may be a secret: this sentence is all that may be printed."""


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_KEY_LIKE = re.compile(r"^(sk|gsk|hf|xai|pk|nvapi)_?|[0-9a-f]{16}", re.IGNORECASE)
_OWN_FIELDS = {
    "model": "--model",
    "messages": "the question and the prompt",
    "n": "--children, --rollouts or --samples",
    "seed": "--seed",
    "stop": "the search",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "max_tokens": "--step-tokens",
    "max_completion_tokens": "--step-tokens",
    "stream": "the client, which reads whole answers",
}
_SECRET_FIELD = re.compile(r"api[-_]?key|secret|password|credential", re.IGNORECASE)


def checked_key_name(value: str | None) -> str | None:
    """Accept the name of an environment variable; refuse what looks like a key itself."""
    if value is None or (_VARIABLE.fullmatch(value) and not _looks_like_a_key(value)):
        return value
    raise Unshown(
        "it is the name of an environment variable that holds the key, such as OPENAI_API_KEY, "
        "never the key itself"
    )


def _looks_like_a_key(value: str) -> bool:
    return value != value.upper() and _KEY_LIKE.search(value) is not None


def _pairs(value: Any, write: Callable[[Any], str]) -> list[str]:
    """Return a mapping, as a settings file has it, as the texts that flags take."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [f"{name}={write(inner)}" for name, inner in value.items()]
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
        raise Unshown("it holds names with values")
    return list(given)


def checked_headers(value: Any) -> Any:
    """Accept headers, as `NAME=VALUE` or as a mapping."""
    pairs = _pairs(value, str)
    for text in pairs:
        try:
            check_header(text)
        except CredentialProblem as problem:
            raise Unshown(str(problem)) from None
    return pairs


def checked_body(value: Any) -> Any:
    """Accept fields of a request's body, as `KEY=JSON` or as a mapping."""
    pairs = _pairs(value, lambda inner: json.dumps(inner, ensure_ascii=False, default=str))
    for text in pairs:
        name, equals, given = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise Unshown("a field of the body is KEY=JSON, such as reasoning_effort=low")
        if name in _OWN_FIELDS:
            raise Unshown(f"{name} is decided by {_OWN_FIELDS[name]}")
        if _SECRET_FIELD.search(name):
            raise Unshown(f"{name} looks like a secret; send it with --server-header")
        if not _is_plain(given.strip()):
            raise Unshown(f"{name}: its value is no JSON")
    return pairs


KeyName = Annotated[str | None, BeforeValidator(checked_key_name)]
Headers = Annotated[tuple[str, ...], BeforeValidator(checked_headers)]
BodyFields = Annotated[tuple[str, ...], BeforeValidator(checked_body)]


def parsed_headers(pairs: Sequence[str]) -> dict[str, str]:
    """Return headers by name, references still in them."""
    parts = (text.partition("=") for text in pairs)
    return {name.strip(): value.strip() for name, _, value in parts}


def parsed_body(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the fields by name; a value that is no JSON is a text."""
    parts = (text.partition("=") for text in pairs)
    return {name.strip(): _json_or_text(value.strip()) for name, _, value in parts}


def _json_or_text(given: str) -> Any:
    """Read a value as JSON alone: to YAML `off` is a boolean, and `0123` the number 83."""
    try:
        return json.loads(given)
    except ValueError:
        return given


def _is_plain(given: str) -> bool:
    """Return whether a value is JSON, or a text that nobody can have meant as JSON."""
    try:
        json.dumps(value := _json_or_text(given), allow_nan=False)
    except (ValueError, RecursionError):
        return False
    meant = given.startswith(("{", "[", '"')) or given in ("True", "False", "None")
    return not (meant and value == given)


def checked_capabilities(value: Any) -> Any:
    """Accept a list such as `continue,stop,n,seed` or `no-continue`."""
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if value is not None:
        try:
            parse_capabilities(str(value))
        except ValueError as error:
            raise Unshown(str(error)) from None
    return value


Abilities = Annotated[str | None, BeforeValidator(checked_capabilities)]


def first_problem(error: ValidationError) -> tuple[str, str, str]:
    """Return the field of the first error, its type, and its sentence with what was given."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else "the settings"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Unshown):
        return field, first["type"], str(cause)
    reason = f"{first['msg']} (it was {without_secrets(shorten(first['input']))})"
    inner = ".".join(map(str, first["loc"][1:]))
    return field, first["type"], f"{inner}: {reason}" if inner else reason


def without_secrets(value: Any) -> Any:
    """Mask passwords of URLs in a settings' values, as they are stored and shown."""
    if isinstance(value, str):
        return mask_url(value) if "@" in value or "?" in value else value
    if isinstance(value, dict):
        return {name: without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return value
