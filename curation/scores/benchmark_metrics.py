"""The metrics a benchmark publishes, from its questions and the answers. Pure.

    metrics = METRICS["pope"](questions, answers)        # {"f1": 0.86, "precision": …}
    metrics = published_metrics(task.metrics, questions, answers)

A metric is a function of questions and answers, one answer a question in the same order, None where
there was none. Every metric is a share from 0 to 1, None where nothing was there to count. Answers
are graded by `curation.grading.grade` like everywhere; a question that can't be graded is left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from curation.grading.actions import parse_action
from curation.grading.grade import choice_of, grade
from curation.grading.normalize import normalize
from mcts.data import AnswerKind, Question

Answers = Sequence[str | None]
Metrics = dict[str, float | None]
Metric = Callable[[Sequence[Question], Answers], Metrics]


def accuracy(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute the share of right answers, every question counted alike."""
    return {"accuracy": _mean(score for _, score in _scores(questions, answers))}


def by_family(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute the accuracy of each family, and their mean, `macro`, all families alike."""
    return _by(questions, answers, lambda question: question.family, "macro")


def by_halves(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute accuracy by what stands on either side of a family's slash: `mobile/icon`."""
    halves: defaultdict[str, list[float]] = defaultdict(list)
    for question, score in _scores(questions, answers):
        for half in question.family.split("/"):
            halves[half].append(score)
    return {f"accuracy/{half}": _mean(scores) for half, scores in sorted(halves.items())}


def orders(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute accuracy for each order of the options (`part_of`), and `orders`, their mean.

    `every_order` is the share of questions that are right in all the orders that were asked; a
    question is the same where its text, its images and, in any order, its options are.
    """
    by_order: defaultdict[str, list[float]] = defaultdict(list)
    by_question: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for question, score in _scores(questions, answers):
        by_order[question.part_of].append(score)
        images = tuple(image.image_id for image in question.images)
        by_question[question.text, images, tuple(sorted(question.choices))].append(score)
    metrics = {f"accuracy/{order}": _mean(scores) for order, scores in sorted(by_order.items())}
    return {
        **metrics,
        "accuracy/orders": _mean(metrics.values()),
        "accuracy/every_order": _mean(float(min(scores) == 1) for scores in by_question.values()),
    }


def pope(questions: Sequence[Question], answers: Answers) -> Metrics:
    """POPE: precision, recall and F1 of *yes*, and how often *yes* is said, also a category.

    An answer that is neither yes nor no is wrong, is no *yes*, and is counted in `unreadable`. The
    authors read every text without a *no* in it as a yes. `f1/macro` is the categories' mean.
    """
    pairs = list(zip(questions, answers, strict=True))
    metrics = _yes_metrics(pairs, "")
    categories = sorted({question.family for question, _ in pairs})
    for category in categories:
        some = [pair for pair in pairs if pair[0].family == category]
        metrics |= _yes_metrics(some, f"/{category}")
    metrics["f1/macro"] = _mean(metrics[f"f1/{category}"] for category in categories)
    return metrics


def _yes_metrics(pairs: Sequence[tuple[Question, str | None]], name: str) -> Metrics:
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for question, answer in pairs:
        index = choice_of(question, answer) if answer else None
        reply = "neither" if index is None else normalize(question.choices[index])
        counts[(normalize(question.answers[0]), reply)] += 1
    total = sum(counts.values())
    hits = counts["yes", "yes"]
    said_yes, are_yes = (
        sum(n for pair, n in counts.items() if pair[place] == "yes") for place in (1, 0)
    )
    neither = sum(n for (_, reply), n in counts.items() if reply == "neither")
    precision, recall = _share(hits, said_yes), _share(hits, are_yes)
    return {
        f"accuracy{name}": _share(hits + counts["no", "no"], total),
        f"precision{name}": precision,
        f"recall{name}": recall,
        f"f1{name}": _f1(precision, recall),
        f"yes_rate{name}": _share(said_yes, total),
        f"unreadable{name}": _share(neither, total),
    }


def _f1(precision: float | None, recall: float | None) -> float | None:
    if recall is None:
        return None
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def robospatial(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute RoboSpatial-Home: accuracy a category; `yes_no` is of all with that answer."""
    metrics = by_family(questions, answers)
    scores = _scores(questions, answers)
    yes_no = [score for question, score in scores if question.answer_kind is AnswerKind.TEXT]
    return {**metrics, "accuracy/yes_no": _mean(yes_no)}


def actions(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute web actions: whether the kind of action is right, and accuracy of each gold kind.

    `unreadable` is the share of answers that are no action of the environment; they are wrong.
    """
    named: list[float] = []
    unreadable: list[float] = []
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        names = {gold.name for text in question.answers if (gold := parse_action(text))}
        score = grade(question, answer).score
        if not names or score is None:
            continue  # there is nothing to hold the answer against
        action = parse_action(answer or "")
        named.append(float(action is not None and action.name in names))
        unreadable.append(float(action is None))
        for kind in names:
            kinds[kind].append(score)
    metrics = {f"accuracy/{kind}": _mean(scores) for kind, scores in sorted(kinds.items())}
    return {"action": _mean(named), "unreadable": _mean(unreadable), **metrics}


_KEY = re.compile(r"^([23])steps_(\d|multi)$")


def wemath(questions: Sequence[Question], answers: Answers) -> Metrics:
    """Compute We-Math's four kinds of problem, and its strict and loose score.

    Of the problems whose every part was answered, by the whole problem (right or wrong) and its
    steps: wrong, and a step too: `insufficient_knowledge`; wrong with every step right:
    `inadequate_generalization`; right with every step right (strict) or any (loose):
    `complete_mastery`; right otherwise: rote memorization. A score is the share of mastery plus
    half of that of inadequate generalization; `rote_memorization` is its share of the problems
    that are right. Problems that miss a part are left out, and `incomplete` tells their share.
    """
    parts: defaultdict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    steps: defaultdict[str, list[float]] = defaultdict(list)
    for question, score in _scores(questions, answers):
        if match := _KEY.match(question.family):
            parts[int(match[1]), question.part_of][match[2]] = score
            steps[match[1] if match[2] == "multi" else "1"].append(score)
    whole: list[tuple[bool, list[bool]]] = []
    for (count, _), found in parts.items():
        names = [str(n) for n in range(1, count + 1)]
        if all(name in found for name in [*names, "multi"]):
            whole.append((found["multi"] == 1, [found[name] == 1 for name in names]))
    total = len(whole)
    insufficient = sum(not right and not all(each) for right, each in whole)
    inadequate = sum(not right and all(each) for right, each in whole)
    metrics: Metrics = {
        "insufficient_knowledge": _share(insufficient, total),
        "inadequate_generalization": _share(inadequate, total),
        "incomplete": _share(len(parts) - total, len(parts)),
    }
    solved = sum(right for right, _ in whole)
    for name, enough in (("strict", all), ("loose", any)):
        mastered = sum(right and enough(each) for right, each in whole)
        metrics[f"score_{name}"] = _share(mastered + 0.5 * inadequate, total)
        metrics[f"complete_mastery_{name}"] = _share(mastered, total)
        metrics[f"rote_memorization_{name}"] = _share(solved - mastered, solved)
    for count_of in ("1", "2", "3"):
        metrics[f"accuracy/{count_of}_step"] = _mean(steps[count_of])
    return metrics


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "by_family": by_family,
    "by_halves": by_halves,
    "orders": orders,
    "pope": pope,
    "robospatial": robospatial,
    "actions": actions,
    "wemath": wemath,
}


def published_metrics(
    names: Iterable[str], questions: Sequence[Question], answers: Answers
) -> Metrics:
    """Compute accuracy, and the named metrics.

    Raises:
        ValueError: there is no metric of that name, with the names there are.
    """
    metrics = accuracy(questions, answers)
    for name in names:
        if name not in METRICS:
            raise ValueError(f"no metric named {name!r}; there are: {', '.join(METRICS)}")
        metrics |= METRICS[name](questions, answers)
    return metrics


def _scores(questions: Sequence[Question], answers: Answers) -> list[tuple[Question, float]]:
    """Return every question that can be graded, with its score."""
    graded = ((q, grade(q, answer).score) for q, answer in zip(questions, answers, strict=True))
    return [(question, score) for question, score in graded if score is not None]


def _by(
    questions: Sequence[Question], answers: Answers, of: Callable[[Question], str], mean: str
) -> Metrics:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for question, score in _scores(questions, answers):
        groups[of(question)].append(score)
    metrics = {f"accuracy/{name}": _mean(scores) for name, scores in sorted(groups.items())}
    return {**metrics, f"accuracy/{mean}": _mean(metrics.values())}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(part: float, total: float) -> float | None:
    return part / total if total else None
