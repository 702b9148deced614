"""The columns of what goes into a search and what comes out: runs, images, questions, trees.

Read by `warehouse.tables.schema`. Each entry: name, sentence, key columns, columns (name, type,
sentence), parent table.
"""

from __future__ import annotations

SEARCH_TABLES: tuple[tuple[str, str, tuple[str, ...], str, str | None], ...] = (
    (
        "runs",
        "One start of a command or a deployment that wrote into the warehouse.",
        ("run_id",),
        """
        kind            string   What was run: import, build, curate, publish, train, evaluate, ...
        task            string   The task or benchmark it was run for, where it was for one.
        params          string   Its parameters as JSON.
        host            string   Name of the machine it ran on.
        """,
        None,
    ),
    (
        "images",
        "One stored picture; its bytes are the object images/<first two hex>/<image_id>.",
        ("image_id",),
        """
        image_id        string   SHA-256 (hex) of the encoded bytes exactly as stored.
        width           int      Pixels, after the EXIF orientation has been applied.
        height          int      Pixels, after the EXIF orientation has been applied.
        format          string   Encoding of the bytes, such as PNG or JPEG.
        orientation     int      EXIF orientation tag of the bytes: 1 is upright, 2-8 turned.
        bytes           int      Size of the encoded picture in bytes.
        objects         [object] Ground-truth boxes of visible things, original pixels; or null.
        licence         string   Licence of the picture, an SPDX id where there is one.
        source          string   The data set it was published in.
        """,
        None,
    ),
    (
        "questions",
        "One thing to be answered from one or several images, with its gold answer.",
        ("question_id",),
        """
        question_id     string   Content hash of what is asked, of which pixels, and what is right.
        task            string   The task it belongs to: sat2, vstar, web-grounding, web-action, ...
        text            string   The question, without choices and without image markers.
        image_ids       [string] Its images, in the order the question speaks of them.
        answer_kind     string   How answers are compared: text, point_in_box, point, web_action.
        choices         [string] The options shown, in order; empty when the answer is free.
        answers         [string] Gold answers of kinds text and web_action; each alone is right.
        boxes           [box]    Gold boxes of kind point_in_box, original pixels.
        points          [point]  Gold points of kind point, original pixels.
        tolerance       float    Kind point: the largest accepted distance, in original pixels.
        split           string   The split its source assigns; only train is ever trained on.
        family          string   The source's own type of question, for balance and reports.
        part_of         string   The problem it is a part of, where several are scored together.
        source          string   The data set it was published in.
        licence         string   Licence of the question and its images.
        source_file     string   Name of the file it was read from.
        source_row      int      Its row or line in that file, counted from 1.
        imported_at     time     When it was imported.
        """,
        None,
    ),
    (
        "responses",
        "One response of a model, its raw text; nothing else repeats that text.",
        ("response_id",),
        """
        response_id     string   Name of the response: hash of search, node, purpose and sample.
        tree_id         string   The search it was asked for.
        path            string   Tree position it was asked at, such as 0.2.1; empty at the root.
        purpose         string   What was asked: expand, rollout, chain, answer or finish.
        sample          int      Number of the sample among those asked at this position.
        fingerprint     string   Content hash of the request, checked when a search is resumed.
        model           string   Identity of the model that answered.
        text            string   The raw text, coordinates in the model's own space.
        finish_reason   string   stop, or length when it was cut off by the token limit.
        tokens          int      Tokens of this text.
        request_id      string   The request that returned it; n samples share one.
        prompt_tokens   int      Tokens of the shared prompt; on the request's first sample only.
        cached_tokens   int      Of those, tokens served from the prefix cache; first sample only.
        seconds         float    Wall time of the request; on the request's first sample only.
        error           string   Kind of the final failure; null when it was answered.
        message         string   What the failure said; null when it was answered.
        commit_id       string   The commit it came in; shown once that commit is in trees.
        """,
        "trees",
    ),
    (
        "trees",
        "One search over one question, finished or failed, and what it cost.",
        ("tree_id",),
        """
        tree_id         string   The search id: hash of question, configuration, seed and teacher.
        question_id     string   The question searched (see questions).
        task            string   The question's task.
        model           string   Identity of the teacher: name and hash of its weights.
        config          string   The search's configuration as JSON.
        seed            int      The seed the samples' own seeds are derived from.
        status          string   complete, or failed when the teacher gave nothing to search with.
        error           string   Why it failed, or null.
        errors          [string] Final failures of single requests; each cost its branch only.
        simulations     int      Simulations completed; of a baseline, chains sampled.
        stopped_by      string   What ended it sooner: explored, enough, tokens, requests, seconds.
        n_nodes         int      How many nodes it has, discarded ones and the root included.
        n_rollouts      int      How many rollouts it has.
        root_value      float    Mean reward backed up through the root, 0 to 1.
        root_visits     int      Rewards backed up through the root.
        majority_answer string   The answer that most outcomes gave, points in original pixels.
        majority_right  bool     Whether it earned a full reward: self-consistency over the tree.
        right_rollouts  int      Outcomes (rollouts, terminal nodes) that earned a full reward.
        any_right       bool     Whether any outcome earned a full reward.
        requests        int      Requests sent to the teacher.
        prompt_tokens   int      Prompt tokens of those requests.
        cached_tokens   int      Of those, tokens served from the prefix cache; null if never told.
        completion_tokens int    Tokens the teacher wrote.
        seconds         float    Sum of its requests' times, waiting included; they overlap.
        space           string   The teacher's coordinate space, such as normalized_1000.
        min_pixels      int      Fewest pixels the teacher's processor resizes to.
        max_pixels      int      Most pixels the teacher's processor resizes to.
        factor          int      Patch side times merge size of the teacher's processor, in pixels.
        prompt_hash     string   Content hash of the prompt template.
        commit_id       string   The commit it came in; its children carry the same id.
        """,
        None,
    ),
    (
        "nodes",
        "One node of a search tree: a thought, a final answer, or what the search dropped.",
        ("tree_id", "node_id"),
        """
        tree_id         string   The search it belongs to (see trees).
        node_id         int      Number within the tree in order of creation; 0 is the root.
        parent_id       int      node_id of the parent; null for the root.
        path            string   Child numbers from the root, such as 0.2.1; empty for the root.
        depth           int      Steps from the root, which has depth 0.
        thought         string   The step's text, original pixels; null for root and answers.
        x               float    First point cited: original pixels from the left edge.
        y               float    First point cited: original pixels from the top edge.
        image           int      Which of the question's images that point is in, from 0.
        visits          int      Rewards backed up through the node.
        value           float    Mean of those rewards, 0 to 1; null before the first.
        terminal        bool     Whether the node is a final answer.
        answer          string   The final answer of a terminal node, points in original pixels.
        reward          float    Terminal nodes: the grader's score, 0 to 1; null if not graded.
        grade_reason    string   Why the grader gave it.
        discarded       string   Why the search does not follow it; null for a node it does.
        problems        [string] What the parser found wrong with its text, one word each.
        attempts        int      How often it was expanded.
        response_id     string   The response that holds its text; null for the root.
        sample          int      Number of its sample within that request.
        commit_id       string   The commit it came in; shown once that commit is in trees.
        """,
        "trees",
    ),
    (
        "rollouts",
        "One continuation sampled from a node to an answer; its text is in responses.",
        ("tree_id", "rollout_id"),
        """
        tree_id         string   The search it belongs to (see trees).
        rollout_id      int      Number within the tree, from 0.
        node_id         int      The node it starts from.
        answer          string   The answer it reached, points in original pixels; null if none.
        reward          float    The grader's score, 0 to 1; null if it could not be graded.
        grade_reason    string   Why the grader gave it, or what failed.
        n_steps         int      Steps it thought beyond the node's own path.
        response_ids    [string] The response it was sampled in, then one that forced its answer.
        sample          int      Number of its sample within that request.
        problems        [string] What the parser found wrong with its text, one word each.
        commit_id       string   The commit it came in; shown once that commit is in trees.
        """,
        "trees",
    ),
)
