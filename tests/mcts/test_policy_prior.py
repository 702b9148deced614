"""What the teacher finds likelier is tried first: policy priors, from logits to the tree."""

import asyncio
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from mcts.config import search_id
from mcts.coordinates import CoordinateSpace
from mcts.engine import SearchRun, bound_of
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.selection.policy_prior import policy_priors
from mcts.selection.uct import uct
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import TeacherUnavailable
from mcts.teachers.openai_client import OpenAITeacher
from mcts.tree import Node, flatten
from tests.mcts.test_search import run, think
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher
from tests.support.stub_server import StubServer

PUCT = replace(CONFIG, policy_prior=1.0, simulations=3, children=3, rollouts=1)
LIKELIHOODS = {("", "expand", 0): -0.9, ("", "expand", 1): -0.2, ("", "expand", 2): -1.6}


def never_right(node, purpose, steps, sample):
    """Nothing but likelihoods tells its steps apart."""
    if purpose in ("rollout", "answer", "finish"):
        return "<answer>right</answer>"
    return think(100 + 300 * sample, 50 * len(steps) + 17)


def expanded(config, logprobs=LIKELIHOODS, otherwise=never_right):
    policy = ScriptedPolicy(otherwise=otherwise, logprobs=logprobs)
    tree = run(policy, config)
    return [node for node, purpose, *_ in policy.log if purpose == "expand"], tree


def test_a_prior_is_the_share_of_the_likelihood_times_the_number_of_siblings():
    assert policy_priors([]) == []
    assert policy_priors([-3.0]) == [1.0]
    assert policy_priors([-0.7, -0.7]) == [1.0, 1.0]
    first, second, third = policy_priors([-0.2, -0.9, -900.0])
    assert first / second == pytest.approx(2.01375, abs=1e-4) and third == 0
    assert first + second + third == pytest.approx(3)
    assert policy_priors([-900.0, -900.7]) == pytest.approx(policy_priors([-0.2, -0.9]))


def test_a_prior_scales_the_exploration_and_not_the_value():
    parent, child = Node(0, "", None, visits=8), Node(1, "0", None, visits=2, total=1.0)
    child.policy_prior = 0.25
    width = uct(parent, child, 2.0) - 0.5
    assert uct(parent, child, 2.0, policy_weight=1.0) == pytest.approx(0.5 + width / 4)
    assert uct(parent, child, 2.0, policy_weight=0.5) == pytest.approx(0.5 + width / 2)
    assert uct(parent, child, 2.0, policy_weight=-1.0) == pytest.approx(0.5 + width * 4)
    assert uct(parent, child, 0.0, policy_weight=1.0) == 0.5
    assert bound_of(PUCT)(parent, child) == uct(parent, child, 2.0, policy_weight=1.0)


def test_the_likelier_of_steps_that_are_worth_as_much_is_gone_on_from_first():
    assert expanded(PUCT)[0][:2] == ["", "1"]
    plain = expanded(replace(PUCT, policy_prior=0.0))[0]
    assert plain == ["", "0", "1"]
    assert expanded(PUCT, logprobs={})[0] == plain, "unknown is as likely as any"
    _, tree = expanded(replace(PUCT, simulations=12))
    third, first, last = (child.visits for child in tree.root.children)
    assert first > third > last
    assert expanded(replace(PUCT, policy_prior=-1.0))[0][:2] == ["", "2"], "the least likely"
    impossible = {**LIKELIHOODS, ("", "expand", 0): -2000.0}
    assert expanded(replace(PUCT, policy_prior=-10.0), impossible)[0][:2] == ["", "0"]


def test_steps_that_the_search_does_not_follow_take_no_share():
    def script(node, purpose, steps, sample):
        if (node, purpose, sample) == ("", "expand", 2):
            return think(100, 17)  # a copy of the first
        return never_right(node, purpose, steps, sample)

    _, tree = expanded(replace(PUCT, simulations=1), otherwise=script)
    assert tree.root.children[2].discarded == "copy_of_sibling"
    priors = [child.policy_prior for child in tree.root.children]
    assert priors == [*policy_priors([-0.9, -0.2]), 1.0]


def test_further_children_are_compared_with_all_that_are_there():
    run_ = SearchRun(QUESTION, PUCT, ScriptedPolicy(), lambda *_: None, "t")
    parent = run_.tree.root
    for logprob in (-0.9, -0.2, None, -1.6):
        child = run_.add_node(parent, None, None, "r", 0)
        child.mean_logprob = logprob
    run_.set_policy_priors(parent)
    first, second, unknown, third = (child.policy_prior for child in parent.children)
    assert [first, second, third] == policy_priors([-0.9, -0.2, -1.6]) and unknown == 1.0


@pytest.mark.parametrize("wave", [1, 3])
def test_what_is_prefetched_never_changes_the_tree(wave):
    config = replace(PUCT, simulations=8, wave=wave)
    told = {(n, "expand", i): -0.1 * (i + 1) for n in ("", "0", "1", "2") for i in range(3)}

    def grown(config, ahead):
        policy = ScriptedPolicy(otherwise=seeded_teacher, logprobs=told)
        found = search(QUESTION, config, policy, grade, "t", prefetch=lambda: ahead)
        return flatten(asyncio.run(found)), policy.log

    assert grown(config, 5) == grown(config, 0), "nothing is asked ahead"
    plain = replace(config, policy_prior=0.0)
    (tree, log), (same, order) = grown(plain, 5), grown(plain, 0)
    assert tree == same and log != order, "without priors something is"


def test_a_search_without_priors_keeps_its_id():
    old = search_id(QUESTION, CONFIG, 0, "m")
    assert search_id(QUESTION, replace(CONFIG, policy_prior=0.0), 0, "m") == old
    assert search_id(QUESTION, PUCT, 0, "m") != old


class Silent(StubServer):
    """A server that reports no log-probabilities, whatever it is asked."""

    logprobs = False

    def answer(self, body):
        answer = super().answer(body)
        if not self.logprobs:
            for choice in answer["choices"]:
                choice["logprobs"] = None
        return answer


@pytest.mark.parametrize("config", [PUCT, replace(PUCT, policy_prior=0.0)])
async def test_log_probabilities_are_asked_of_steps_alone_and_of_teachers_that_have_them(
    tmp_path, config
):
    config = replace(config, space=CoordinateSpace.qwen3_vl())
    images = {image.image_id: b"" for image in QUESTION.images}
    question = replace(QUESTION, images=())

    async def ask(server, purpose):
        with Journal(tmp_path / str(server.url).rpartition(":")[2]) as journal:
            teacher = OpenAITeacher(server.url)
            policy = TeacherPolicy(
                question, config, "t", JournaledTeacher(teacher, journal), images
            )
            try:
                return await policy.sample("", purpose, (), 2)
            finally:
                await teacher.close()

    with StubServer() as server, Silent() as silent:
        steps, chains = await ask(server, "expand"), await ask(server, "rollout")
        asked = [bool(request["body"].get("logprobs")) for request in server.requests]
        known = [sample.mean_logprob is not None for sample in (*steps, *chains)]
        if config.policy_prior:
            assert (asked, known) == ([True, False], [True, True, False, False])
            with pytest.raises(TeacherUnavailable, match="reports no log-probabilities") as told:
                await ask(silent, "expand")
            assert told.value.permanent
            assert await ask(silent, "rollout")
            silent.logprobs = True
            assert await ask(silent, "expand"), "what it could not say before was not kept"
        else:
            assert (asked, known) == ([False] * 2, [False] * 4)
            assert await ask(silent, "expand")
