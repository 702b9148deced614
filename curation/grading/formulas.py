r"""Formulas as people write them, brought to one spelling.

    spelling(r"$\left( 3, \dfrac{1}{2} \right)$")      # "(3,((1)/(2)))"
    spelling(r"2 \pi") == spelling(r"\(2\pi\)")         # True

What LaTeX writes for the eye is left out: math brackets, sizes, spaces, fonts, `\text{…}`. A space
counts between two words and between two numbers, and nowhere else.
"""

from __future__ import annotations

from functools import lru_cache

import regex

from curation.grading.normalize import LONGEST, bare, fold, normalize

_WRAPPED = (
    regex.compile(r"\$+(.*?)\$+", regex.DOTALL),
    regex.compile(r"\\\((.*)\\\)", regex.DOTALL),
    regex.compile(r"\\\[(.*)\\\]", regex.DOTALL),
    regex.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", regex.DOTALL),
    regex.compile(r"\*\*(.*)\*\*", regex.DOTALL),
    regex.compile(r"__(.*)__", regex.DOTALL),
    regex.compile(r"(`+)(?P<inner>.*?)\1", regex.DOTALL),
)
# A sentence's end behind what is set apart: `**5**.`
_ENDED = regex.compile(
    r"((?:\$|\\\(|\\\[|\\(?:boxed|fbox)|\*\*|__|`).*[$)\]}*_`])\s*[.。!！]", regex.DOTALL
)
_FONT = regex.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|bb|cal|ord)|operatorname|[mh]box|"
    r"emph|boldsymbol|bm|underline|ensuremath)\*?\s*\{([^{}]*)\}"
)
_SIZE = regex.compile(
    r"\\(?:left|right)\s*\.|\\!"
    r"|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])"
)
_SPACE = regex.compile(r"\\(?:[,;:> ]|q?quad(?![a-zA-Z])|\\)|~")
_SYMBOLS = {
    "pi": "π", "theta": "θ", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "Delta": "Δ",
    "lambda": "λ", "mu": "μ", "sigma": "σ", "phi": "φ", "omega": "ω", "Omega": "Ω", "rho": "ρ",
    "infty": "∞", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠", "ne": "≠",
    "lt": "<", "gt": ">", "cdot": "*", "times": "*", "div": "/", "circ": "∘", "degree": "°",
    "angle": "∠", "triangle": "△", "to": "→", "rightarrow": "→", "leftarrow": "←", "uparrow": "↑",
    "leqslant": "≤", "geqslant": "≥", "parallel": "∥", "perp": "⊥", "emptyset": "∅",
    "varnothing": "∅", "downarrow": "↓", "cup": "∪", "cap": "∩", "in": "∈", "approx": "≈",
    "colon": ":", "ldots": "…", "dots": "…", "cdots": "…", "lbrace": "⦃", "rbrace": "⦄",
    "euro": "€", "pounds": "£",
}  # fmt: skip
_SYMBOL = regex.compile(rf"\\({'|'.join(sorted(_SYMBOLS, key=len, reverse=True))})(?![a-zA-Z])\s*")
_ESCAPED = {r"\{": "⦃", r"\}": "⦄", r"\%": "%", r"\$": "$", r"\_": "_", r"\#": "#", r"\&": "&"}
_BRACED = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_ARGUMENT = rf"\s*(?:{_BRACED}|([0-9a-zA-Zπ]))"
_FRACTION = regex.compile(rf"\\[dtc]?frac(?![a-zA-Z]){_ARGUMENT}{_ARGUMENT}")
_ROOT = regex.compile(rf"(?:\\sqrt(?![a-zA-Z])|√)\s*(?:{_BRACED}|(\d+)|([a-zA-Zπ]))")
_NTH_ROOT = regex.compile(rf"\\sqrt\s*\[([^\[\]]*)\]{_ARGUMENT}")
_RAISED = regex.compile(rf"\^\s*(?:{_BRACED}|([+-]?\d+)|([a-zA-Zπ]))")
_LOWERED = regex.compile(rf"_\s*(?:{_BRACED}|(\d+|[a-zA-Z]))")
_DEGREE = regex.compile(r"(?:\{\s*\})?\^\s*(?:\{\s*[∘°]\s*\}|[∘°])")
_PLAIN_ROOT = regex.compile(r"(?<![a-zA-Z\\])sqrt\s*(?=[(\d])")
_SET = regex.compile(r"\{([^{}\\]*,[^{}\\]*)\}")
_INNER_MATH = regex.compile(r"\$(?=\S)([^$]*[^$\s\\])\$(?!\d)")
_COMPARED = regex.compile(r"[<>]=|(?<![\d)]\s*)!=")  # `3!=6` is a factorial
_COMPARISONS = {">=": "≥", "<=": "≤", "!=": "≠"}
_PLAIN_SIGNS = str.maketrans({**dict.fromkeys("×·⋅∙∗", "*"), "÷": "/"})
# `3, 400` is no thousand; behind a bracket's items a `;` is as good as a comma.
_TWO_NUMBERS = regex.compile(r"(?<=\d), (?=\d{3}(?!\d))")
# Between two words and between two numbers a space counts.
_LOOSE_SPACE = regex.compile(
    r"(?<![\p{L}\p{M}\d])\s+|\s+(?![\p{L}\p{M}\d])"
    r"|(?<=\d)\s+(?=[\p{L}\p{M}])|(?<=[\p{L}\p{M}])\s+(?=\d)"
)


def unwrap(text: str) -> str:
    r"""Strip what only sets a text apart: `$…$`, `\(…\)`, `\boxed{…}`, `**…**`, backticks."""
    text = text.strip()
    found = len(text) <= 10 * LONGEST
    while found:
        found = False
        if ended := _ENDED.fullmatch(text):
            text = ended[1]
        for wrapped in _WRAPPED:
            if (match := wrapped.fullmatch(text)) and (
                inner := match[match.lastindex or 1].strip()
            ):
                text, found = inner, True
    return text


def spelling(text: str) -> str:
    """Rewrite a formula, tuple or number as it is compared; words are folded as by `normalize`."""
    return _spelling(text) if len(text) <= LONGEST else _LOOSE_SPACE.sub("", normalize(text))


@lru_cache(maxsize=1 << 12)
def _spelling(text: str) -> str:
    text = without_latex(fold(text))
    if match := _SET.fullmatch(text.strip()):  # `{1, 2}`, where no LaTeX escapes the braces
        text = f"⦃{match[1]}⦄"
    if len(text) <= LONGEST:
        text = _PLAIN_ROOT.sub("√", text)
        text = _COMPARED.sub(lambda match: _COMPARISONS[match[0]], text)
        text = _DEGREE.sub("°", text)
        for pattern, form in (
            (_FRACTION, "((%s)/(%s))"), (_NTH_ROOT, "root(%s,%s)"), (_ROOT, "√(%s)"),
            (_RAISED, "^(%s)"), (_LOWERED, "_(%s)"),
        ):  # fmt: skip
            text = _rewrite(pattern, form, text)
    text = regex.sub(r"[{}]", "", text).translate(_PLAIN_SIGNS)
    text = bare(" ".join(text.casefold().split()))
    return _LOOSE_SPACE.sub("", _TWO_NUMBERS.sub(";", text))


def without_brackets(text: str) -> str:
    """Strip round brackets around all of a spelling that is no tuple, but not a fraction's own."""
    inner = text[1:-1]
    if text[:1] == "(" and text[-1:] == ")" and inner and "," not in inner and ";" not in inner:
        simple = "(" not in inner and ")" not in inner
        fraction = inner.startswith("((") and inner.endswith("))")
        return inner if simple or fraction else text
    return text


def _unwrap_all(text: str) -> str:
    r"""Unwrap also what stands in a font within: `\boxed{\text{(B)}}`."""
    for _ in range(4):
        inner = unwrap(text)
        if match := _FONT.fullmatch(inner):
            inner = match[1].strip() or inner
        if inner == text:
            break
        text = inner
    return text


def without_latex(text: str) -> str:
    """Rewrite LaTeX's commands by signs, and leave out those for the eye."""
    text = _unwrap_all(text)
    if len(text) > LONGEST or not ("\\" in text or "$" in text):
        return text
    text = regex.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)  # written twice, as in JSON
    text = _INNER_MATH.sub(r"\1", regex.sub(r"\\[()\[\]]", "", text))
    text = _SPACE.sub(" ", _SIZE.sub("", text.replace("{,}", ",")))
    before = ""
    while text != before:
        before, text = text, _FONT.sub(r"\1", text)
    for escaped, sign in _ESCAPED.items():
        text = text.replace(escaped, sign)
    return _SYMBOL.sub(lambda match: _SYMBOLS[match[1]], text)


def _rewrite(pattern: regex.Pattern[str], form: str, text: str) -> str:
    """Rewrite every match, also within another, by its groups in `form`."""

    def one(match: regex.Match[str]) -> str:
        return form % tuple(group for group in match.groups() if group is not None)

    before = ""
    while text != before and len(text) <= 4 * LONGEST:
        before, text = text, pattern.sub(one, text)
    return text
