"""Checks before any training: what would otherwise fail hours later, or fail silently.

    check_rows(examples, student, processor, limit, template)   # every row
    check_sft(trainer, examples)        # SFT: labels token by token; one batch can be overfitted
    check_dpo(trainer, sides)           # DPO: the same, and the reference is the student as it is
    check_rollouts(trainer, prompts)                        # GRPO: sampler and trainer agree
    check_episodes(trainer, prompts)                        # the same, behind a crop as well

- What the chat template renders is what the row says, thought by thought
  (`training.chat_templates`).
- Every row's text has a place for each of its images, every image opens with the size that its
  points refer to, the processor makes as many tokens of it as the model expects, and nothing is
  longer than what the model or the recipe allows: nothing is ever cut off. A crop is rendered in
  the size that its observation says, so of crops of one size one is opened.
- Labels of real rows are held against their texts, token by token (`training.batches.sft_batches`).
- One batch is overfitted in a few steps, then the weights are restored: else the loss reaches none.
- Before the first step student and reference say the same of a pair: else the reference is another.
- The sampler's likeliest tokens are the trainer's likeliest, too: else one of the two sees other
  images, another prompt or other weights. Of a student that zooms they are compared behind a crop
  once more, and so are the tokens and the pixels of everything that it has been shown by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mcts.data import Point, ZoomCall
from mcts.teachers.checkpoints import read_json
from mcts.tool_calls.calls import write_call
from mcts.tool_calls.views import Views
from training import trainers
from training.batches.sft_batches import check_labels, check_pair_labels
from training.chat_templates import PAD, ChatTemplate, check_row, image_turns, unknown_tags
from training.errors import TrainingError
from training.examples import Examples, decode_image
from training.students import Student
from warehouse.tables.schema import Row

OVERFIT_STEPS, OVERFIT_ROWS, OVERFIT_TO = 30, 4, 0.8
"""In at most so many steps on so many rows the loss must fall to this share."""
SAME = 1e-2
"""Reward, beta times a difference of log-probabilities, that may be rounding."""
_NEAR = 0.1
"""Log-probabilities of the same tokens may differ so much on average."""
AGREED = 0.98
"""Share of greedy tokens that must be the trainer's likeliest, too; ties differ by rounding."""
_PROMPTS, _TOKENS = 2, 48
_TAG = re.compile(r"</?[a-z_]+>")
_FEWER_LOOKS = " or `zoom.max_calls` (longer dialogues are then left out)"


def check_rows(
    examples: Examples,
    student: Student,
    processor: Any,
    limit: int | None,
    template: str | None = None,
) -> str:
    """Check every row; return the outcome as a sentence.

    Args:
        limit: most tokens of a row, images included; None for the model's context alone.
        template: the chat template that the trainer applies, where it isn't the model's own.

    Raises:
        TrainingError: a row is wrong; it names the first, and what to do.
    """
    context = _context(student)
    most = min(limit, context) if limit else context
    tokens_of: dict[tuple[int, int], int] = {}
    sizes: dict[str, tuple[int, int]] = {}
    longest, added, tags = 0, "", set[str]()
    chat = ChatTemplate.of(processor, template)
    for number, row in enumerate(examples.rows, 1):
        name = row.get("name") or row.get("trace_id") or row["question_id"]
        where = f"row {number} ({name})"
        image_tokens = 0
        asked, *_ = turns = image_turns(row)
        for image_id, turn, (width, height) in zip(
            row["image_ids"], turns, row["image_sizes"], strict=True
        ):
            size = (width, height)
            if image_id not in sizes:
                opens = turn == asked or size not in tokens_of
                sizes[image_id] = _image_size(examples, image_id, where) if opens else size
            if sizes[image_id] != size:
                raise TrainingError(
                    f"{where}: image {image_id} has {sizes[image_id]} pixels, not {size} "
                    "as its points refer to; import it anew"
                )
            if size not in tokens_of:
                tokens_of[size] = _image_tokens(examples, image_id, student, processor)
            image_tokens += tokens_of[size]
        rendered = check_row(chat, row, student.prompt_style.response_style, where)
        text, added = rendered.text, added or rendered.added
        tags.update(_TAG.findall(text))
        _check_places(text, row, where)
        length = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        longest = max(longest, length + image_tokens - len(row["image_ids"]))
        if longest > most:
            raise TrainingError(
                f"{where}: {longest} tokens, more than {most}; nothing is cut off, so leave it out "
                f"of the version, lower max_pixels{_FEWER_LOOKS * (len(set(turns)) > 1)}, or raise "
                "the recipe's limit"
            )
    own = f"; the chat template itself adds {added[:200]!r} to prompts" if added else ""
    fitting = f"{len(examples.rows)} rows and {len(sizes)} images fit"
    unknown = () if student.taught_here else unknown_tags(processor, tags)
    return f"{fitting}, the longest has {longest} tokens{own}{_unknown_told(unknown)}"


def _check_places(text: str, row: Row, where: str) -> None:
    if text.count(PAD) != len(row["image_ids"]):
        raise TrainingError(
            f"{where}: its text has {text.count(PAD)} places for {len(row['image_ids'])} "
            f"images; a question that holds {PAD} can't be trained on, leave it out"
        )


def _unknown_told(tags: Sequence[str]) -> str:
    """Return what to do about tags that the model may not know, as the end of a sentence."""
    if not tags:
        return ""
    names = ", ".join(dict.fromkeys(tag.strip("</>") for tag in tags))
    return (
        f"; {' and '.join(tags)} are single tokens that the model's own chat template never writes,"
        f" so it may never have learned them: `text_tags: [{names}]` in the recipe has it read and "
        "write them as text"
    )


def check_sft(trainer: Any, examples: Examples) -> str:
    """Check labels token by token, then that one batch can be overfitted; return both outcomes.

    Raises:
        TrainingError: see `check_labels` and `check_overfit`.
    """
    processor = trainer.processing_class
    template = ChatTemplate.of(processor, trainers.training_template(processor))
    return f"{check_labels(trainer, examples, template)}; {check_overfit(trainer, examples)}"


def check_dpo(trainer: Any, sides: Examples) -> str:
    """Check pairs token by token, the reference, and that a batch can be overfitted.

    Args:
        sides: the better side of each of the trainer's pairs, and behind it the worse one.

    Returns:
        The outcomes as a sentence.

    Raises:
        TrainingError: see `check_labels` and `check_overfit`; or the reference is another model.
    """
    import torch

    processor = trainer.processing_class
    template = ChatTemplate.of(processor, trainers.training_template(processor))
    labels = check_pair_labels(trainer, sides, template)
    batch = _some_rows(trainer, trainer.train_dataset)
    trainer.model.train()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        trainer.compute_loss(trainer.model, dict(batch))
    rewards = [trainers.newest_metric(trainer, f"rewards/{s}") for s in ("chosen", "rejected")]
    if not max(map(abs, rewards)) <= SAME:
        raise TrainingError(
            f"before the first step student and reference differ (rewards {rewards[0]:.2g} and "
            f"{rewards[1]:.2g}, where 0 is right): they have other weights, images or precision"
        )
    return f"{labels}; the reference is the student; {_overfit(trainer, batch)}"


def check_overfit(trainer: Any, examples: Examples) -> str:
    """Overfit one batch, then restore the weights; return the outcome as a sentence.

    Raises:
        TrainingError: no token is learned, or the loss does not fall.
    """
    return check_dataset_overfits(trainer, examples.dataset())


def check_dataset_overfits(trainer: Any, dataset: Any) -> str:
    """Overfit the first rows of a dataset as the trainer's collator takes it; see `check_overfit`.

    Raises:
        TrainingError: no token is learned, or the loss does not fall.
    """
    return _overfit(trainer, _some_rows(trainer, dataset))


def _some_rows(trainer: Any, dataset: Any) -> Row:
    """Return the first rows as a batch."""
    rows = [dataset[i] for i in range(min(OVERFIT_ROWS, len(dataset)))]
    return trainers.prepare_batch(trainer, rows)


def _overfit(trainer: Any, batch: Row) -> str:
    """See `check_overfit`."""
    import torch

    learned = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"] > 0
    if not bool(learned.any()):
        raise TrainingError(
            "no token of the first rows is learned: the chat template marks no assistant tokens"
        )
    model = trainer.model
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        raise TrainingError("nothing is trained: every weight is frozen")
    before = [p.detach().clone() for p in weights]
    rate = min(1e-3, max(1e-5, 10 * trainer.args.learning_rate))
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    training = model.training
    model.train()
    losses: list[float] = []
    try:
        for _ in range(OVERFIT_STEPS):
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, dict(batch))
            losses.append(float(loss.detach()))
            if losses[-1] != losses[-1]:
                raise TrainingError("the loss of the first batch is not a number: use float32")
            if losses[-1] <= OVERFIT_TO * losses[0]:
                break
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        else:
            raise TrainingError(
                f"one batch can't be overfitted: its loss went from {losses[0]:.3g} to "
                f"{losses[-1]:.3g} in {OVERFIT_STEPS} steps; check what is frozen and masked"
            )
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)
                weight.grad = None
        model.train(training)
        trainers.reset_metrics(trainer)
    return f"one batch overfits: loss {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps"


def check_rollouts(trainer: Any, prompts: Examples) -> str:
    """Sample greedily, and compare with the trainer's own forward pass over the same tokens.

    Raises:
        TrainingError: they disagree.
    """
    from trl.data_utils import prepare_multimodal_messages

    dataset = prompts.dataset()
    rows = [dataset[i] for i in range(min(_PROMPTS, len(prompts.rows)))]
    chats = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    ids, images, fields = trainers.tokenize_prompts(trainer, chats)
    with greedy(trainer):
        completions, logprobs = trainers.generate(trainer, ids, images, fields)
    found = _Comparison(trainer)
    for i, (prompt, completion) in enumerate(zip(ids, completions, strict=True)):
        logits = _forward(trainer, chats[i], [*map(int, prompt), *completion])
        found.add(logits[len(prompt) - 1 : -1], completion, logprobs and logprobs[i])
    found.check("sampler and trainer disagree")
    trainers.reset_metrics(trainer)
    return f"sampler and trainer agree: {found}"


class _Comparison:
    """Holds what a sampler wrote against the trainer's own forward pass over it.

    A sampler that tells its log-probabilities is judged by them: what it writes need not be the
    likeliest then, since it samples as in training. Another is greedy.
    """

    def __init__(self, trainer: Any) -> None:
        self._image_pad = trainers.image_pad_token(trainer)
        self._temperature = float(trainer.args.temperature)
        self.off = 0.0
        """The largest difference of log-probabilities, of a completion's the mean."""
        self._told, self._same, self._total = False, 0, 0

    def add(self, logits: Any, tokens: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Add a completion: its logits (tokens x vocabulary), and the sampler's log-probabilities
        at its temperature, where it tells them."""
        import torch

        logits = logits.float()
        logits[:, self._image_pad] = -torch.inf  # which no sampler may write
        sampled = torch.tensor(tokens, device=logits.device)
        self._same += int((logits.argmax(-1) == sampled).sum())
        self._total += len(tokens)
        if logprobs is not None:
            self._told = True
            theirs = torch.tensor(logprobs, device=logits.device)
            ours = (logits / self._temperature).log_softmax(-1).gather(-1, sampled[:, None])[:, 0]
            self.off = max(self.off, float((theirs - ours).abs().mean()))

    def check(self, sentence: str) -> None:
        """Check that both agree.

        Raises:
            TrainingError: they do not.
        """
        if (not self._told and self._same < AGREED * self._total) or self.off > _NEAR:
            raise TrainingError(
                f"{sentence}: {self}; check that both have the same weights, chat template and "
                "image sizes"
            )

    def __str__(self) -> str:
        apart = f"log-probabilities differ by {self.off:.2g}"
        if self._told:
            return f"{apart} over {self._total} sampled tokens"
        likeliest = f"{self._same} of {self._total} greedy tokens are the trainer's likeliest"
        return f"{likeliest}, and {apart}" if self.off else likeliest


def check_episodes(trainer: Any, prompts: Examples) -> str:
    """Check the sampler of a student that zooms, before and behind an observation.

    The student's first turn is made for it, a call of the image's middle, so that it is shown
    something whatever it would do. The trainer's side is the conversation as the chat template
    renders it and the processor encodes it, images and all.

    Raises:
        TrainingError: they disagree.
    """
    from trl.data_utils import prepare_multimodal_messages

    before = check_rollouts(trainer, prompts)
    dataset = prompts.dataset()
    # What follows a crop is compared from the question on: a prefix would be turns of its own.
    rows = [{**dataset[i], "prefix": ""} for i in range(min(_PROMPTS, len(prompts.rows)))]
    chats = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    episodes, observer = trainer.begin(*trainers.tokenize_prompts(trainer, chats), rows)
    told = [_called(trainer, *pair, observer) for pair in zip(chats, episodes, strict=True)]
    starts = [len(episode.completion_ids) for episode in episodes]
    nexts = None if trainer.use_vllm or not trainer.local else trainer.next_logits(episodes)
    room = max(episode.written for episode in episodes) + _TOKENS
    with greedy(trainer), _attributes(trainer, max_completion_length=room):
        logprobs = trainer.play(episodes, observer)
    found = _Comparison(trainer)
    for i, (chat, episode, start) in enumerate(zip(told, episodes, starts, strict=True)):
        stop = next((n for n, m in enumerate(episode.mask) if n > start and not m), None)
        tokens = episode.completion_ids[start:stop]
        context = [*episode.prompt_ids, *episode.completion_ids[:start]]
        logits = _forward(trainer, chat, [*context, *tokens])[len(context) - 1 : -1].float()
        if nexts is not None:
            ours = logits[0].log_softmax(-1)
            off = float((nexts[i].float().log_softmax(-1) - ours).abs().max())
            found.off = max(found.off, off)
        found.add(logits, tokens, logprobs and logprobs[i][start:stop])
    found.check("behind a crop sampler and trainer disagree")
    trainers.reset_metrics(trainer)
    return f"{before}; behind a crop {found}"


def _called(trainer: Any, chat: Any, episode: Any, observer: Any) -> Any:
    """Have an episode's first turn call, and hold what follows against the rendered conversation.

    Returns:
        The conversation so far, as the trainer renders it.
    """
    image = episode.question.images[0]
    call = write_call(ZoomCall(Point(image.width / 2, image.height / 2)), Views(episode.frame))
    text = f"<think>I look closer at the middle.</think>\n<tool_call>{call}</tool_call>"
    tokens = trainer.processing_class.tokenizer(text, add_special_tokens=False)["input_ids"]
    episode.take(tokens, text, True, observer)
    shown = [{"type": "image", "image": crop} for crop in episode.images[len(_chat_images(chat)) :]]
    said = episode.messages[-1]
    chat = [
        *chat,
        {"role": "assistant", "content": [{"type": "text", "text": text}]},
        {"role": said["role"], "content": [*shown, {"type": "text", "text": said["content"]}]},
    ]
    (ids,), _, fields = trainers.tokenize_prompts(trainer, [chat])
    if list(map(int, ids)) != episode.context:
        raise TrainingError(
            "behind a crop the sampler goes on from other tokens than the chat template writes "
            f"({len(episode.context)} and {len(ids)}): it changes earlier turns, or the turn of "
            "what a tool shows; let chat_template.jinja write both as they are"
        )
    pixels = [image.pixels.to("cpu") for image in episode.inputs]
    if not shown or not _same_pixels(pixels, fields["pixel_values"]):
        raise TrainingError(
            "sampler and trainer see other pictures behind a call: the processor makes other "
            "pixels of the same crop when it is given several images"
        )
    return chat


def _chat_images(chat: Any) -> list[Any]:
    """Return the images of a conversation, in order."""
    parts = [part for message in chat for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def _same_pixels(pieces: list[Any], whole: Any) -> bool:
    """Return whether pixels of several images, put together, are those of all."""
    import torch

    return torch.equal(torch.cat(pieces), torch.as_tensor(whole).cpu())


def _forward(trainer: Any, chat: Any, tokens: list[int]) -> Any:
    """Return the trainer's logits (tokens x vocabulary) for one prompt and its completion."""
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    _, _, fields = trainers.tokenize_prompts(trainer, [chat])
    inputs = {
        k: torch.as_tensor(v, device=model.device)
        for k, v in fields.items()
        if k in ("pixel_values", "image_grid_thw")
    }
    ids = torch.tensor([tokens], device=model.device)
    with torch.no_grad():
        return model(
            input_ids=ids, attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == trainers.image_pad_token(trainer)).int(), **inputs,
        ).logits[0]  # fmt: skip


@contextmanager
def greedy(trainer: Any) -> Iterator[None]:
    """Sample at temperature 0 and for a few tokens, unseen by trackers: TRL sends them how long
    sampling took, and they are set up only when training begins."""
    with ExitStack() as stack:
        stack.enter_context(_attributes(trainer.args, report_to=[]))
        if not trainer.use_vllm:  # its log-probabilities are compared instead
            kwargs = {**trainer.generation_kwargs, "do_sample": False, "max_new_tokens": _TOKENS}
            kwargs.pop("temperature", None)
            config = {"do_sample": False, "max_new_tokens": _TOKENS, "temperature": None}
            stack.enter_context(_attributes(trainer.generation_config, **config))
            stack.enter_context(
                _attributes(
                    trainer, temperature=0.0, max_completion_length=_TOKENS,
                    generation_kwargs=kwargs,
                )
            )  # fmt: skip
        yield


@contextmanager
def _attributes(target: Any, **values: Any) -> Iterator[None]:
    """Set attributes, and restore them afterwards."""
    before = {name: getattr(target, name) for name in values}
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


def _context(student: Student) -> int:
    """Return the most tokens that the model can read."""
    config = read_json(student.folder / "config.json")
    of_text = config.get("text_config", config).get("max_position_embeddings")
    return int(of_text or config.get("max_position_embeddings") or 2**31)


def _image_size(examples: Examples, image_id: str, where: str) -> tuple[int, int]:
    try:
        width, height = decode_image(examples.read_image(image_id)).size
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{where}: image {image_id} can't be opened ({error})") from None
    return int(width), int(height)


def _image_tokens(examples: Examples, image_id: str, student: Student, processor: Any) -> int:
    """Count the tokens the processor makes of an image; check that it resizes as the points do."""
    image = decode_image(examples.read_image(image_id))
    images = processor.image_processor
    grid = [int(n) for n in images(images=[image], return_tensors="pt")["image_grid_thw"][0]]
    text = f"<|vision_start|>{PAD}<|vision_end|>"
    made = processor(images=[image], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    count = made.count(processor.tokenizer.convert_tokens_to_ids(PAD))
    vision = read_json(student.folder / "config.json").get("vision_config", {})
    expected = grid[0] * grid[1] * grid[2] // vision.get("spatial_merge_size", 2) ** 2
    if count != expected:
        raise TrainingError(
            f"image {image_id}: the processor writes {count} image tokens where the model "
            f"expects {expected}; the processor's files are not this model's"
        )
    if student.space.factor and student.space.kind == "absolute_resized":
        from mcts.data import Image

        size = student.space.size(Image(image_id, *image.size))
        resized = (grid[2] * images.patch_size, grid[1] * images.patch_size)
        if size != resized:
            raise TrainingError(
                f"image {image_id}: the processor resizes it to {resized}, but points are written "
                f"in {size}; set max_pixels in the recipe to what the processor has"
            )
    return count
