"""Tables of what is made from trees and images: traces, datasets, models, evaluations, hashes.

Read by `warehouse.tables.schema`. Each entry: name, sentence, key columns, columns (name, type,
sentence), parent table.
"""

from __future__ import annotations

TRACE_TABLES: tuple[tuple[str, str, tuple[str, ...], str, str | None], ...] = (
    (
        "traces",
        "One finished line of reasoning about one question, from a search or an evaluation.",
        ("trace_id",),
        """
        trace_id        string   Content hash of the reasoning and of where it was cut from.
        question_id     string   The question it is about (see questions).
        tree_id         string   The search it was cut from; null where there was none.
        task            string   The question's task.
        origin          string   search for training material, evaluation for measured outputs.
        kind            string   How it was made: direct, corrected, zoom, ...; or answered.
        text            string   The whole reasoning as text, points in original pixels.
        answer          string   Its final answer, points in original pixels; null if none.
        reward          float    The grader's score of the answer, 0 to 1; null if not graded.
        n_steps         int      How many steps it has.
        n_points        int      How many points are cited in all steps together.
        wrong_from      int      Kind corrected: the step (from 0) where the wrong attempt begins.
        turns_back_at   int      Kind corrected: the step (from 0) with which it turns back.
        problems        [string] What the parser found wrong in its responses, one word each.
        model           string   Identity of the model that wrote it.
        linearizer      string   Code that cut it from its tree, or evaluate/1: and the evaluation.
        commit_id       string   The commit it came in; its steps and verdicts carry it too.
        """,
        None,
    ),
    (
        "steps",
        "One thought of a trace, with the point it is about.",
        ("trace_id", "step"),
        """
        trace_id        string   The trace it belongs to (see traces).
        step            int      Its position in the trace, from 0.
        thought         string   The text, coordinates in original pixels.
        x               float    First point cited: original pixels from the left edge.
        y               float    First point cited: original pixels from the top edge.
        image           int      Which of the question's images that point is in, from 0.
        points          [point]  Every point cited, in reading order, original pixels.
        n_points        int      How many points it cites.
        grounded        bool     Whether the point is on what the step names; null if unknown.
        call            point    The point it asked to see enlarged, original pixels; or null.
        observation     observation The crop that call showed, original pixels; or null.
        node_id         int      The tree node whose thought it is, or its rollout's start.
        rollout_id      int      The rollout it was sampled in; null for a node's own step.
        response_id     string   The response that holds its text; null if the pipeline wrote it.
        commit_id       string   The commit it came in; shown once that commit is in traces.
        """,
        "traces",
    ),
    (
        "verdicts",
        "One filter's word on one trace; rejects are kept, with the reason.",
        ("trace_id", "filter", "version"),
        """
        trace_id        string   The trace judged (see traces).
        filter          string   Name of the filter.
        version         int      Of the filters of one stage together; the newest counts.
        keep            bool     Whether the filter keeps the trace.
        reason          string   Why, in words; empty when kept without remark.
        score           float    The measured quantity behind the decision, where there is one.
        commit_id       string   The commit of its trace; null for a verdict given later.
        stage           string   corpus for filters that compare a trace with others; else null.
        method          string   Stage corpus: name, version and settings of what decided.
        other           string   The trace or question the reason names; null if it names none.
        """,
        "traces",
    ),
    (
        "behaviors",
        "How often a trace shows one behavior.",
        ("trace_id", "behavior", "method"),
        """
        trace_id        string   The trace (see traces).
        behavior        string   regions, subgoals, verification, backtracking, ...
        count           int      How often it occurs in the trace; null if a judge gave no number.
        method          string   How it was counted: rule/1, or judge/1: and the judge model.
        error           string   Kind of failure where the judge was not heard, such as timeout.
        """,
        None,
    ),
    (
        "step_scores",
        "One measure of one step of a trace, made later by a model; boxes fill steps.grounded.",
        ("trace_id", "step", "score", "method"),
        """
        trace_id        string   The trace it belongs to (see traces).
        step            int      The step measured, from 0 (see steps).
        score           string   grounding: does it point at what it says; necessity: does it help.
        method          string   How: region, without or moved, a version, and the model asked.
        value           float    A probability, or the change in value; null if there is none.
        base            float    Necessity: mean reward with the step as it is; null for others.
        n               int      How many answers of the model the value rests on.
        note            string   logprobs or samples, or why there is no value.
        responses       [string] Names of the responses behind it, as the judge's journal has them.
        error           string   Kind of failure where the model was not heard, such as timeout.
        """,
        None,
    ),
    (
        "reviews",
        "One person's word on a trace or a step.",
        ("review_id",),
        """
        review_id       string   Name of the review.
        trace_id        string   The trace looked at (see traces).
        step            int      The step looked at, from 0; null for the whole trace.
        reviewer        string   Who looked at it.
        verdict         string   right, wrong or unsure.
        comment         string   What they wrote.
        """,
        None,
    ),
    (
        "dataset_versions",
        "One published, immutable data set version, named name@vN.",
        ("name", "version"),
        """
        name            string   Name of the data set.
        version         int      The N of name@vN, from 1.
        content_hash    string   SHA-256 of its rows in order; equal content, equal hash.
        sql             string   The statement that chose its traces.
        table_versions  string   The version of every table the statement read, as JSON.
        n_rows          int      Traces in it.
        n_images        int      Distinct images in it.
        card            string   Its card as JSON: counts, funnel, teacher, space, licences.
        """,
        None,
    ),
    (
        "models",
        "One model known to the warehouse: a teacher or a trained student.",
        ("model_id",),
        """
        model_id        string   Identity of the model: name and hash of its weights.
        name            string   The name a person uses.
        base            string   The model it was trained from; null if from scratch.
        dataset         string   The data set version it was trained on, as name@vN.
        question_ids    [string] The questions of a task it was trained on, where no version was.
        recipe          string   How it was trained, as JSON.
        path            string   Where its files are, relative to the warehouse's objects.
        space           string   Its coordinates: absolute_resized, normalized_1000, ...
        min_pixels      int      Fewest pixels its processor resizes to.
        max_pixels      int      Most pixels its processor resizes to.
        factor          int      Patch side times merge size of its processor, in pixels.
        metrics         string   What was measured while it was trained, as JSON.
        """,
        None,
    ),
    (
        "evaluations",
        "One model measured on one benchmark.",
        ("evaluation_id",),
        """
        evaluation_id   string   Name of the evaluation.
        model_id        string   The model measured (see models).
        benchmark       string   Task and split it was measured on.
        n_questions     int      How many questions were asked.
        accuracy        float    Mean score of all questions, 0 to 1; ungraded ones count as 0.
        low             float    Lower end of the 95% interval of accuracy.
        high            float    Upper end of the 95% interval of accuracy.
        settings        string   Decoding settings as JSON.
        control         string   Shown in place of the pictures: blank or shuffled; null for none.
        temperature     float    Sampling temperature; 0 is greedy.
        samples         int      Answers to each question.
        prompt          string   The prompt file, which decides the response style.
        n_scenes        int      Groups of questions without a picture in common, as resampled.
        figures         string   By family, and all: every share with its interval, as JSON.
        metrics         string   The benchmark's own figures by name, as JSON; null if it has none.
        """,
        None,
    ),
    (
        "predictions",
        "One answer of a model in an evaluation; the reasoning is the trace.",
        ("evaluation_id", "question_id", "sample"),
        """
        evaluation_id   string   The evaluation it belongs to (see evaluations).
        question_id     string   The question (see questions).
        sample          int      Number of the sample for that question, from 0.
        trace_id        string   The whole output as a trace (see traces).
        answer          string   The answer given, points in original pixels; null if none.
        score           float    The grader's score, 0 to 1; null if it could not be graded.
        reason          string   The grader's words, or why there is no answer.
        valid           bool     Whether the answer is one of the options, one point or one action.
        finish_reason   string   stop, or length when the answer was cut off by the limit.
        error           string   Kind of the request's failure; null if it was answered.
        looked_at       float    Share of the objects asked about that its points lie on; or null.
        response        string   What the model wrote, in its own coordinates.
        """,
        None,
    ),
    (
        "promotions",
        "One decision to make a model the current one for a task.",
        ("promotion_id",),
        """
        promotion_id    string   Name of the decision.
        model_id        string   The model promoted, or considered.
        task            string   The task it is for.
        promoted        bool     Whether it was made the current model.
        reason          string   Why, with the numbers compared.
        """,
        None,
    ),
    (
        "revocations",
        "One source, question or run marked as bad; versions published later leave it out.",
        ("revocation_id",),
        """
        revocation_id   string   Name of the revocation.
        subject         string   What is revoked: source, question, run, image or trace.
        value           string   Its name or id.
        reason          string   Why it is revoked.
        """,
        None,
    ),
    (
        "image_hashes",
        "What one picture looks like, in 64 bits: alike pictures differ in few of them.",
        ("image_id", "method"),
        """
        image_id        string   The picture (see images).
        method          string   Name and version of the hash, such as dct-phash/1.
        hash            string   Its 64 bits as 16 hex digits; null for a blank picture.
        """,
        None,
    ),
    (
        "folds",
        "Where a training picture stands between validation and training; the newest row counts.",
        ("image_id", "version"),
        """
        image_id        string   The picture (see images).
        version         int      1, and one more each time its group or its place has changed.
        group_id        string   Its group: pictures alike, or of one question; the smallest id.
        place           float    Of the group, 0 to 1: any share's validation lies below it.
        """,
        None,
    ),
)
