"""Why one version has a row and another lacks it: one reason a row, out of what the tables say.

    reason, what, detail = explain(trace_id, has, lacks)       # both a Side

`has` is the version with the row, `lacks` the one without, whichever is the later: the same facts
explain a row that was removed and one that was added. A reason is only given when the facts show
it; what they do not show is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warehouse.versions.diff_state import Fact, State
from warehouse.versions.versions import Version

REASONS = {
    "revoked": "revoked",
    "deleted": "deleted from the tables",
    "question": "its question is new",
    "tree": "its search is new",
    "curated": "its tree was curated since",
    "linearizer": "cut anew by another linearizer",
    "filter": "a filter decides otherwise",
    "unjudged": "no filter had judged it",
    "row": "what is told of it has changed",
    "statement": "the statement differs",
    "variant": "it has no such form",
    "others": "other traces came or went",
    "code": "the views' code has changed",
}
"""What each reason means, in words for a table."""

_Why = tuple[str, str, str]
Row = dict[str, Any]

# Tables that every command writes into, whatever it is about.
_BOOKKEEPING = {"runs", "dataset_versions"}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, with the tables it was cut from."""

    version: Version
    state: State

    @property
    def sql(self) -> str:
        return str(self.version.card["sql"])


def explain(trace_id: str, has: Side, lacks: Side) -> _Why:
    """The reason, what it is about, and the detail, why `lacks` has no row of the trace."""
    here, there = has.state.fact(trace_id), lacks.state.fact(trace_id)
    if there.revoked:
        first = there.revoked[0]
        return "revoked", f"{first['subject']} {first['value']}", first["reason"]
    if not there.there:
        return _absent(here, there, has, lacks)
    told = lacks.version.card.get("variant")
    others = lacks.state.chosen_by(lacks.sql)
    if told and others and trace_id in others:
        why = f"{lacks.version.ref} tells its traces as {told!r}: this one has no such form"
        return "variant", told, f"{why}, or says there what another says"
    own, others = has.state.chosen_by(has.sql), lacks.state.chosen_by(lacks.sql)
    if own is None or others is None or trace_id not in own or trace_id in others:
        # Asked again, a statement does not give what it gave: the views it reads are today's.
        was, now = has.version.card["revision"], lacks.version.card["revision"]
        return "code", f"{was[:12]} and {now[:12]}", "a view it is chosen by means something else"
    crossed = lacks.state.chosen_by(has.sql)
    if crossed is not None and trace_id in crossed:
        return "statement", *_statement(there, lacks)
    told = _tables(here, there, has, lacks)
    other_way = has.state.chosen_by(lacks.sql)
    if other_way is not None and trace_id not in other_way:
        # Either alone would lose it. What the tables say is the nearer cause.
        return (*told[:2], f"{told[2]}; nor does {lacks.version.ref}'s statement choose it")
    return told


def _absent(here: Fact, there: Fact, has: Side, lacks: Side) -> _Why:
    """The lacking side's tables do not hold the trace."""
    if _traces(has) <= _traces(lacks):  # the side without it came later, and lost it
        return "deleted", "", "the trace is no longer in the tables"
    run = here.row["tree_run"] or here.row["trace_run"]
    if not there.row["question"]:
        return "question", "", f"its question was not imported for {lacks.version.ref} yet"
    if not there.row["tree"]:
        return "tree", str(run or ""), f"its tree was not searched for {lacks.version.ref} yet"
    if there.row["cuts"]:
        what = f"{_named(there.row['newest'])} -> {_named(here.row['linearizer'])}"
        return "linearizer", what, "its tree was there, cut otherwise"
    return "curated", str(here.row["trace_run"] or ""), "its tree was there, not curated yet"


def _traces(side: Side) -> int:
    """The version of the table of traces that a side read."""
    return int(side.version.card["table_versions"].get("traces", -1))


def _statement(there: Fact, lacks: Side) -> tuple[str, str]:
    """What the statement that does not choose it may have gone by."""
    drops = [row for row in there.verdicts.values() if not row["keep"]]
    if drops:
        what = ", ".join(row["filter"] for row in drops)
        reasons = "; ".join(f"{row['filter']}: {row['reason']}" for row in drops)
        return what, f"{lacks.version.ref}'s does not choose it; filters drop it ({reasons})"
    kept = "every filter keeps it" if there.verdicts else "no filter judged it"
    return "", f"{lacks.version.ref}'s does not choose it; {kept}"


def _tables(here: Fact, there: Fact, has: Side, lacks: Side) -> _Why:
    """What the two states of the tables say unlike of a trace both hold."""
    drops = {
        name: row
        for name, row in there.verdicts.items()
        if not row["keep"] and here.verdicts.get(name, {"keep": True})["keep"]
    }
    if drops:
        told = "; ".join(_turned(here.verdicts.get(f), row, has, lacks) for f, row in drops.items())
        return "filter", ", ".join(drops), told
    if here.verdicts and not there.verdicts:
        return "unjudged", "", f"{lacks.version.ref} was published before it was judged"
    if here.row["latest"] and not there.row["latest"]:
        what = f"{_named(here.row['linearizer'])} -> {_named(there.row['newest'])}"
        return "linearizer", what, "its tree has been cut anew, and the newest cut counts"
    unlike = {
        column: f"{column}: {here.row['told'][column]} in {has.version.ref}, {value}"
        for column, value in there.row["told"].items()
        if here.row["told"][column] != value
    }
    if unlike:
        told = "; ".join(unlike.values())
        return "row", ", ".join(unlike), f"{told} in {lacks.version.ref}"
    mine, theirs = has.version.card["table_versions"], lacks.version.card["table_versions"]
    moved = sorted(n for n in {*mine, *theirs} - _BOOKKEEPING if mine.get(n) != theirs.get(n))
    return (
        "others",
        ", ".join(moved),
        "nothing told of it differs: the statement weighs traces against each other, or against "
        "other tables, and these have changed",
    )


def _named(linearizer: str | None) -> str:
    return linearizer or "unnamed"


def _turned(before: Row | None, row: Row, has: Side, lacks: Side) -> str:
    """One filter's two words on a trace, told from the side that has the row."""
    name, reason = row["filter"], row["reason"] or "without a reason"
    by = f"version {row['version']} of the filters"
    dropped = f"dropped by {by}, in {lacks.version.ref} ({reason})"
    if before is None:
        return f"{name}: {dropped}, not asked in {has.version.ref}"
    return f"{name}: {dropped}, kept by version {before['version']}, in {has.version.ref}"
