"""What people say of a trace becomes one verdict, by the majority of those who decide."""

import pytest

from curation.filters.review import Review, review_verdict


def said(*verdicts):
    return [Review("t", name, verdict) for name, verdict in zip("abcd", verdicts, strict=False)]


@pytest.mark.parametrize(
    ("verdicts", "keep", "score"),
    [
        (["right"], True, 1.0),
        (["wrong"], False, 0.0),
        (["unsure"], True, None),
        (["right", "wrong"], True, 0.5),
        (["wrong", "unsure"], False, 0.0),
        (["right", "wrong", "wrong"], False, 1 / 3),
    ],
)
def test_a_trace_is_dropped_where_more_find_it_wrong_than_right(verdicts, keep, score):
    verdict = review_verdict(said(*verdicts))
    assert (verdict.filter, verdict.keep, verdict.score) == ("review", keep, score)


def test_the_reason_names_who_finds_it_wrong_and_why():
    wrong = Review("t", "ada", "wrong", "points at the other ball")
    verdict = review_verdict([wrong, Review("t", "ben", "wrong"), Review("t", "cy", "right")])
    assert verdict.reason == "wrong, says ada: points at the other ball; ben; right, says cy"
    assert review_verdict(said("right", "unsure")).reason == ""
