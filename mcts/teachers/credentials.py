"""What a server is told in confidence: the API key, secret headers, a password in its URL.

    url, password = split_url("http://me:s3cret@gpu:8000")        # what is shown, and what is sent
    access = Access("sk-...", {"x-team": "$TEAM_TOKEN"}, user_info=password)
    access.headers                                                # for the connection only
    access.mask("Incorrect API key provided: sk-...")             # "...: ***"

Settings hold names of environment variables, never their values, so nothing that is stored can hold
a secret. A server may still repeat one: `mask` goes over every text that comes from it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"

DEFAULT_KEYS = ("VIGORL_API_KEY", "OPENAI_API_KEY")
"""Environment variables that hold the key where none is named; the first that is set."""

_SHORTEST_IN_WORDS = 4
_SHORTEST_IN_ANSWERS = 16
"""A key such as `EMPTY` is also a word: what a model writes keeps it."""

_USER_INFO = re.compile(r"(?<=://)[^/@\s?#]+(?=@)")
_BARE_USER_INFO = re.compile(r"(?<![\w:/])([^/@\s:?#,]+):[^/@\s?#]+(?=@)")
_SECRET_QUERY = re.compile(
    r"([?&][\w.-]*(?:key|token|secret|password|signature|sig)=)[^&#\s,]+", re.IGNORECASE
)
_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_SECRET_HEADER = re.compile(
    r"authorization|cookie|key|token|secret|password|credential", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"\s*(?:(?:bearer|basic|token)\s.*|(?=[^\d]*\d)(?=[^a-z]*[a-z])[\w.+/=-]{20,})\s*",
    re.IGNORECASE,
)
"""A scheme with its token, or a long word of letters and digits."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("content-type", "content-length", "host", "transfer-encoding", "connection")


class CredentialProblem(ValueError):
    """A setting about secrets is wrong; the sentence never holds one."""


def mask_url(text: str) -> str:
    """Replace passwords and keys of the URLs in a text by `***`; `$NAME` references stay."""

    def user_info(match: re.Match[str]) -> str:
        user, colon, password = match[0].partition(":")
        hidden = password if password.startswith("$") else MASK
        return f"{user}:{hidden}" if colon else (user if user.startswith("$") else MASK)

    text = _USER_INFO.sub(user_info, text)
    if "://" not in text:
        text = _BARE_USER_INFO.sub(rf"\1:{MASK}", text)
    return _SECRET_QUERY.sub(rf"\1{MASK}", text)


def split_url(url: str, environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return a URL without its user and password, and these as `user:password`; empty if none.

    Raises:
        CredentialProblem: they are masked, or refer to a variable that is not set.
    """
    match = _USER_INFO.search(url)
    if match is None:
        return url, ""
    if MASK in match[0]:
        raise CredentialProblem("the password of the URL is masked (***); give it again")
    shown = url[: match.start()] + url[match.end() + 1 :]
    return shown, ":".join(unquote(expand(part, environ)) for part in match[0].split(":", 1))


def expand(value: str, environ: Mapping[str, str] | None = None) -> str:
    """Replace `$NAME` and `${NAME}` by the environment's values; `$$` is a dollar sign.

    Raises:
        CredentialProblem: there is no such variable.
    """
    variables = os.environ if environ is None else environ

    def fill(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not variables.get(name, "").strip():
            raise CredentialProblem(f"the environment has no variable {name}, or it is empty")
        return variables[name].strip()

    return "$".join(_REFERENCE.sub(fill, part) for part in value.split("$$"))


def read_key(name: str | None, environ: Mapping[str, str] | None = None) -> str:
    """Return the API key from the variable `name`, or from one of `DEFAULT_KEYS`; empty if none.

    Raises:
        CredentialProblem: `name` is given, and there is no such variable.
    """
    variables = os.environ if environ is None else environ
    for candidate in (name,) if name else DEFAULT_KEYS:
        if key := variables.get(candidate, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise CredentialProblem(f"{candidate} holds characters that no API key has")
            return key
    if name:
        raise CredentialProblem(f"the environment has no variable {name}, or it is empty")
    return ""


def check_header(text: str) -> None:
    """Refuse a header `NAME=VALUE` that is none, or that shows a secret.

    Raises:
        CredentialProblem: says what to write instead.
    """
    name, equals, value = text.partition("=")
    name, lower = name.strip(), name.strip().lower()
    if not equals or not _HEADER_NAME.fullmatch(name):
        raise CredentialProblem("a header is NAME=VALUE, such as x-team=vision or x-key=$TEAM_KEY")
    if lower in _OURS:
        raise CredentialProblem(f"{name} is set by the client")
    if not value.strip() or not value.isprintable() or not value.isascii():
        raise CredentialProblem(f"{name} needs a value of printable ASCII characters")
    secret = _SECRET_HEADER.search(name) or _SECRET_VALUE.fullmatch(value)
    if secret and not _REFERENCE.search(value):
        raise CredentialProblem(
            f"{name} looks like a secret, and settings are stored: put it into an environment "
            f"variable and write {name}={'Bearer ' * (lower == 'authorization')}$THAT_VARIABLE"
            + ("; for a key, --api-key-env is enough" if lower == "authorization" else "")
        )


class Access:
    """Headers that open a server, and the secrets in them.

    Args:
        headers: values may hold `$NAME` references.
        user_info: `user:password` of the URL; it takes the place of the key.

    Raises:
        CredentialProblem: a reference leads to no variable.
    """

    def __init__(
        self,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        user_info: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.headers: dict[str, str] = {}
        secrets = {api_key or ""}
        if user_info:
            encoded = base64.b64encode(user_info.encode()).decode("ascii")
            self.headers["Authorization"] = f"Basic {encoded}"
            secrets |= {encoded, user_info, user_info.partition(":")[2]}
        elif api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        for name, value in (headers or {}).items():
            filled = expand(value, environ)
            if filled != value:
                secrets |= {filled, *(expand(m[0], environ) for m in _REFERENCE.finditer(value))}
            for set_before in [known for known in self.headers if known.lower() == name.lower()]:
                del self.headers[set_before]
            self.headers[name] = filled
        found = {form for secret in secrets for form in (secret, quote(secret, safe=""))}
        kept = [secret for secret in found if len(secret) >= _SHORTEST_IN_WORDS]
        self._secrets = sorted(kept, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Access({', '.join(self.headers) or 'no headers'})"

    def mask(self, text: str) -> str:
        """Replace every secret in a server's words."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def explain(self, sentence: str) -> str:
        """Add to a server's refusal what to do where nothing was sent that could open it."""
        if "refuses the API key" not in sentence or "Authorization" in self.headers:
            return sentence
        return (
            f"{sentence} None was sent: put it in VIGORL_API_KEY, or name its variable with "
            "--api-key-env."
        )

    def masked(self, data: Any) -> Any:
        """Replace long secrets in the strings of JSON, in place where it can be."""
        long = [secret for secret in self._secrets if len(secret) >= _SHORTEST_IN_ANSWERS]
        return _masked(data, long) if long else data


def _masked(data: Any, secrets: list[str]) -> Any:
    if isinstance(data, str):
        for secret in secrets:
            if secret in data:
                data = data.replace(secret, MASK)
        return data
    if isinstance(data, dict):
        return {_masked(key, secrets): _masked(value, secrets) for key, value in data.items()}
    if isinstance(data, list):
        return [_masked(value, secrets) for value in data]
    return data
