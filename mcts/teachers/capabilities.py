"""What a server can do: declared, or found out once when it refuses something.

    capabilities = Capabilities(parse_capabilities("continue,stop,n,seed"))
    form = capabilities.form(request)                     # the features to use for this request
    form = capabilities.without_refused(form, message)    # after a refusal; None: it is final
    capabilities.confirm(form)                            # after an answer

OpenAI-compatible servers differ in the parameters they take, and many refuse a request with one
that they don't know. Each feature below has something that replaces it. A refusal that names a
parameter switches off its feature. One that names none is followed by the plainest form of the
request; then later requests try one doubtful feature at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mcts.teachers.base import Request


@dataclass(frozen=True, slots=True)
class Feature:
    """Something a request may ask of a server."""

    parameters: tuple[str, ...]
    """Names by which a refusal may mean it."""
    instead: str
    """What is done where it is missing, for the user."""


FEATURES: dict[str, Feature] = {
    "continue": Feature(
        ("continue_final_message", "add_generation_prompt"),
        "the thoughts so far go into the question",
    ),
    "n": Feature(("n",), "every sample is a request of its own"),
    "stop": Feature(("include_stop_str_in_output",), "stop strings are restored where they belong"),
    "seed": Feature(("seed",), "samples are drawn without a seed"),
    "count": Feature(
        ("structured_outputs", "guided_regex", "regex", "grammar"),
        "thoughts are counted when the answer is there",
    ),
    "logprobs": Feature(("logprobs", "top_logprobs"), "scores are read from the words"),
    "top_p": Feature(("top_p",), "nucleus sampling is left to the server"),
    "max_tokens": Feature(("max_tokens",), "the limit is sent as max_completion_tokens"),
    "temperature": Feature(("temperature",), "the server's own temperature holds"),
}

_ALWAYS = ("seed", "top_p", "max_tokens", "temperature")
_BASIC = ("max_tokens", "temperature")
"""Part of the plainest form all the same: nearly every server takes them."""

DECLARABLE = ("continue", "stop", "n", "seed", "count")
"""What `--server-can` takes. The first four that are left out of the list are not used."""


def parse_capabilities(text: str) -> dict[str, bool]:
    """Parse a list such as `continue,stop,n,seed`; `none` declares that there is nothing.

    Raises:
        ValueError: a word in it is no capability.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in (*DECLARABLE, "none")]:
        raise ValueError(
            f"{unknown[0]!r} is no capability: name those of {', '.join(DECLARABLE)} that the "
            "server has, or none"
        )
    declared = {word: word in words for word in DECLARABLE[:4]}
    return declared | ({"count": True} if "count" in words else {})


class Capabilities:
    """What is known of one server; `None` is not known yet."""

    def __init__(self, declared: Mapping[str, bool] | None = None) -> None:
        self.known: dict[str, bool | None] = dict.fromkeys(FEATURES)
        self.known.update(declared or {})
        self._certain = set(declared or {})
        """Declared, refused, or in an answered request; the others may still be refused."""
        self._doubtful: set[str] = set()
        """Left out of a plain form that was answered; one of them was refused."""
        self._explained = False
        """Whether the feature that was refused without being named has been found."""
        self._final: set[str] = set()
        """Refusals that the plainest form met too."""

    def presume(self, names: Iterable[str]) -> None:
        """Take features as present until they are refused, of a server of a known kind."""
        for name in names:
            if self.known[name] is None:
                self.known[name] = True

    def switch_off(self, names: Iterable[str]) -> None:
        """Take features as missing."""
        for name in names:
            self.known[name] = False
            self._certain.add(name)
            self._doubtful.discard(name)

    def is_certain(self, name: str) -> bool:
        """Return whether the server is known to have a feature, not only presumed to."""
        return self.known[name] is True and name in self._certain

    def needed(self, request: Request) -> tuple[str, ...]:
        """Return the features that this request would use, in the order of their worth."""
        uses = {
            "continue": request.continues,
            "n": request.n > 1,
            "stop": bool(request.stop),
            "count": request.max_thoughts > 0,
            "logprobs": request.top_logprobs > 0,
        }
        return tuple(name for name in FEATURES if uses.get(name, name in _ALWAYS))

    def unknown(self, request: Request) -> bool:
        """Return whether the request uses a feature of which nothing is known."""
        return any(self.known[name] is None for name in self.needed(request))

    def form(self, request: Request) -> frozenset[str]:
        """Return the features to use: those known, and of the doubtful ones the first."""
        usable = [name for name in self.needed(request) if self.known[name] is not False]
        doubtful = [name for name in usable if name in self._doubtful]
        return frozenset(usable) - frozenset(doubtful[1:])

    def without_refused(self, form: frozenset[str], message: str) -> frozenset[str] | None:
        """Return the next form to try after a refusal; None if it has to be believed."""
        open_ = form - self._certain
        if not open_ or message in self._final:
            return None
        named = [name for name in open_ if _names(message, FEATURES[name].parameters)]
        certain = [name for name in open_ if open_ == {name} and name in self._doubtful]
        if refused := named or certain:
            self._explained = self._explained or not named
            self.switch_off(refused)
            return form - frozenset(refused)
        doubted = frozenset(name for name in open_ if self.known[name] is None)
        if plain := doubted - frozenset(_BASIC):
            self._doubtful |= plain
            return form - plain
        self._doubtful.clear()
        self._final.add(message)
        return None

    def confirm(self, form: frozenset[str]) -> None:
        """Take every feature of a form that was answered as known."""
        for name in form:
            self.known[name] = True
        self._certain |= form
        self._doubtful -= form
        if len(self._doubtful) == 1 and not self._explained:
            self.switch_off(list(self._doubtful))
            self._explained = True


def _names(message: str, parameters: Iterable[str]) -> bool:
    """Return whether a refusal names one of `parameters`."""
    return any(re.search(rf"(?<![\w.-]){re.escape(p)}(?![\w-])", message) for p in parameters)
