"""What a server can do: declared, or found out once when it refuses something.

    capabilities = Capabilities(parse_capabilities("continue,stop,n,seed"))
    attempt = capabilities.attempt(request)
    attempt.form                       # the features to use for this request
    attempt.refused("no such field")   # True: send it again in the form that is left
    attempt.answered()                 # remember what this server takes, and what it does not

OpenAI-compatible servers differ in the parameters they take, and many refuse a request with one
that they don't know. Each feature below has something that replaces it. A refusal that names a
parameter takes its feature out. One that names none is followed by the plainest form of the
request; then later requests try one doubtful feature at a time. Only an answer to the form without
a feature proves that the server lacks it: a refusal may be about the request itself.
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
    phrases: str
    """Pattern of other words for it; empty for none."""
    instead: str
    """What is done where it is missing, for the user."""


FEATURES: dict[str, Feature] = {
    "continue": Feature(
        ("continue_final_message", "add_generation_prompt"),
        r"prefill|last role|final message|must end with a user|last message",
        "the thoughts so far go into the question",
    ),
    "tool_turns": Feature(
        ("tool_call_id", "tool_calls"),
        r"\btool\b.{0,40}\b(?:messages?|role|turns?)\b|\brole\b.{0,40}\btool\b",
        "what a tool shows comes as a turn of the user",
    ),
    "n": Feature(("n",), "", "every sample is a request of its own"),
    "stop": Feature(
        ("include_stop_str_in_output",),
        "",
        "stop strings are restored where they belong",
    ),
    "stop_strings": Feature(
        ("stop",), "", "texts are cut here, after more was written than is used"
    ),
    "seed": Feature(("seed",), "", "samples are drawn without a seed"),
    "count": Feature(
        ("structured_outputs", "guided_regex", "regex", "grammar"),
        "",
        "thoughts are counted when the answer is there",
    ),
    "logprobs": Feature(
        ("logprobs", "top_logprobs"), "", "no token has a probability; scores are read from words"
    ),
    "top_p": Feature(("top_p",), "", "it is left out where it is 1"),
    "max_tokens": Feature(("max_tokens",), "", "the limit is sent as max_completion_tokens"),
    "temperature": Feature(("temperature",), "", "it is left out where it is 1"),
}

_ALWAYS = ("seed", "top_p", "max_tokens", "temperature")
_BASIC = ("max_tokens", "temperature", "stop_strings", "seed")
"""Part of the plainest form all the same: nearly every server takes them."""
_DECIDES_IN_FULL = ("continue", "stop", "n", "seed")
"""Of these, a list that names any lacks those it leaves out."""


def parse_capabilities(text: str) -> dict[str, bool]:
    """Parse what a server has, `continue,stop,n,seed`, or what it lacks, `no-continue,no-seed`.

    Where anything is listed that it has, those of continue, stop, n and seed that are left out are
    not used; `none` says that it has none of them.

    Raises:
        ValueError: a word in it is no capability, or stands there with and without `no-`.
    """
    words = [word.strip().lower().replace("-", "_") for word in text.split(",") if word.strip()]
    words = [re.sub("^no_", "no-", word) for word in words]
    has = {word for word in words if word in FEATURES}
    lacks = {word.removeprefix("no-") for word in words if word.removeprefix("no-") in FEATURES}
    lacks -= has
    for word in words:
        if word != "none" and word.removeprefix("no-") not in FEATURES:
            raise ValueError(
                f"{word!r} is no capability: name those of {', '.join(FEATURES)} that the server "
                "has, those it lacks as no-continue and so on, or none"
            )
        if word.removeprefix("no-") in has and word not in has:
            raise ValueError(f"{word} contradicts {word.removeprefix('no-')}")
    declared = dict.fromkeys(lacks, False)
    if has or "none" in words:
        declared = dict.fromkeys(_DECIDES_IN_FULL, False) | declared
    return declared | dict.fromkeys(has, True)


VLLM_TAKES = (
    "n", "stop", "stop_strings", "seed", "top_p", "max_tokens", "temperature", "logprobs"
)  # fmt: skip


class Capabilities:
    """What is known of one server."""

    def __init__(self, declared: Mapping[str, bool] | None = None) -> None:
        self.declared = dict(declared or {})
        self.known: dict[str, bool | None] = dict.fromkeys(FEATURES)
        """None is not known yet."""
        self.known.update(self.declared)
        self.most_samples: int | None = None
        """More samples a request than these were refused; None if none were."""
        self.doubtful: set[str] = set()
        """Left out of a plain form that was answered; one of them was refused."""
        self.explained = False
        """Whether the feature that was refused without being named has been found."""
        self.presumed: set[str] = set()
        """Taken for known of a server of its kind, until one is refused."""
        self.final: set[str] = set()
        """Refusals that the plainest form met too, numbers aside."""

    def presume(self, names: Iterable[str]) -> None:
        """Take features as present until they are refused, of a server of a known kind."""
        for name in names:
            if self.known[name] is None:
                self.known[name] = True
                self.presumed.add(name)

    def unknown(self, request: Request) -> bool:
        """Return whether the request uses a feature of which nothing is known."""
        names = set(_needed(request))
        if self.known["stop_strings"] is False:
            names.discard("stop")  # which is about them
        return any(self.known[name] is None for name in names)

    def form(self, request: Request) -> frozenset[str]:
        """Return the features to use: those known, and of the doubtful ones the first."""
        usable = {
            name
            for name in _needed(request)
            if self.known[name] is not False or not _may_go(name, request)
        }
        if "stop_strings" not in usable:
            usable.discard("stop")
        if self.most_samples is not None and request.n > self.most_samples:
            usable.discard("n")
        doubtful = [name for name in FEATURES if name in usable and name in self.doubtful]
        return frozenset(usable) - frozenset(doubtful[1:])

    def attempt(self, request: Request) -> Attempt:
        """Begin to send a request."""
        return Attempt(self, request)


class Attempt:
    """One request on its way to a form that the server takes."""

    def __init__(self, capabilities: Capabilities, request: Request) -> None:
        self._server, self._request = capabilities, request
        self.form = capabilities.form(request)
        """The features to use now."""
        self._named: set[str] = set()
        """Taken out because a refusal named them."""
        self._doubted: set[str] = set()
        """Taken out because a refusal named nothing."""

    def refused(self, message: str) -> bool:
        """Change the form after a refusal; False where it has to be believed."""
        server, request = self._server, self._request
        said = re.sub(r"\d+", "#", message)
        named = {
            name for name in self.form - server.declared.keys() if _means(message, FEATURES[name])
        }
        open_ = {n for n in self.form if server.known[n] is None or n in server.presumed}
        may_go = {n for n in open_ - server.presumed if _may_go(n, request)}
        if said in server.final or any(not _may_go(name, request) for name in named):
            return self._believed(said)
        if refused := named & open_:
            return self._without(refused, named=True)
        if "n" in named:  # it took fewer samples than these
            return self._without({"n"}, named=True)
        if len(open_) == 1 and open_ <= server.doubtful & may_go:
            server.explained = True
            return self._without(open_, named=True)
        if plain := (may_go - set(_BASIC)) or may_go:
            self._doubted |= plain - server.doubtful
            server.doubtful |= plain
            return self._without(plain, named=False)
        return self._believed(said)

    def _without(self, names: set[str], *, named: bool) -> bool:
        self.form -= names
        if "stop_strings" in names:
            self.form -= {"stop"}
        if named:
            self._named |= names
            self._server.doubtful -= names
        return True

    def _believed(self, said: str) -> bool:
        self._server.doubtful -= self._doubted
        self._server.final.add(said)
        return False

    def gives_too_few(self) -> None:
        """Note that fewer samples came than were asked for, unless the server can give them."""
        server = self._server
        if server.known["n"] is None or "n" in server.presumed:
            self._without({"n"}, named=True)

    def answered(self) -> None:
        """Learn from the form that was answered."""
        server = self._server
        for name in self._named - self.form:
            if name == "n" and server.known["n"] and "n" not in server.presumed:
                server.most_samples = self._request.n - 1
            else:
                server.known[name] = False
        server.presumed -= self._named | self.form
        for name in self.form:
            server.known[name] = True
        server.doubtful -= self.form
        if len(server.doubtful) == 1 and not server.explained:
            server.known[server.doubtful.pop()] = False
            server.explained = True


def _needed(request: Request) -> tuple[str, ...]:
    """Return the features that a request would use, in the order of their worth."""
    uses = {
        "continue": request.continues,
        "tool_turns": any(message.role == "tool" for message in request.messages),
        "n": request.n > 1,
        "stop": bool(request.stop),
        "stop_strings": bool(request.stop),
        "count": request.max_thoughts > 0,
        "logprobs": request.top_logprobs > 0 or request.logprobs,
    }
    return tuple(name for name in FEATURES if uses.get(name, name in _ALWAYS))


def _may_go(name: str, request: Request) -> bool:
    """Return whether the request means the same without a feature."""
    if name == "temperature":
        return request.temperature == 1.0
    return name != "top_p" or request.top_p == 1.0


def _means(message: str, feature: Feature) -> bool:
    """Return whether a refusal is about a feature."""
    named = (rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in feature.parameters)
    phrases = [feature.phrases] if feature.phrases else []
    return any(re.search(pattern, message, re.IGNORECASE) for pattern in [*named, *phrases])


def advice(message: str, request: Request) -> str:
    """Return what to change where a refusal is about a value that was asked for; empty if not."""
    if request.temperature != 1.0 and _means(message, FEATURES["temperature"]):
        return "; give --temperature 1"
    if request.top_p != 1.0 and _means(message, FEATURES["top_p"]):
        return "; give --top-p 1"
    return ""
