"""Checks before any training: what would otherwise fail hours later, or fail silently.

    check_rows(examples, learner, processor, context)       # every row
    check_overfit(trainer, examples)                        # SFT: one batch can be learned by heart
    check_rollouts(trainer, asked)                          # GRPO: sampler and trainer agree

- Every row's text has a place for each of its pictures, every picture opens with the size that its
  points were told by, the processor makes as many tokens of it as the model expects, and nothing is
  longer than what the model or the recipe allows: nothing is ever cut off.
- A batch is learned by heart in a few steps, and forgotten again: else the loss reaches no weights.
- What the sampler finds likeliest is what the trainer finds likeliest, token by token: else one of
  the two sees other pictures, another prompt or other weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcts.teachers.checkpoints import read_json
from training.errors import TrainingError
from training.examples import Examples, decoded
from training.students import Student

PAD = "<|image_pad|>"
OVERFIT_STEPS, OVERFIT_ROWS, OVERFIT_TO = 30, 4, 0.8
"""At most so many steps on so many rows until the loss is this share of what it was."""
AGREED = 0.98
"""Share of greedy tokens that must be the trainer's likeliest, too; ties differ by rounding."""
_PROMPTS, _TOKENS = 2, 48


def check_rows(examples: Examples, learner: Student, processor: Any, limit: int | None) -> str:
    """Look at every row; a sentence for people.

    Args:
        limit: most tokens of a row, pictures included; None for the model's context alone.

    Raises:
        TrainingError: with the first row that is wrong, and what to do.
    """
    context = _context(learner)
    most = min(limit, context) if limit else context
    tokens_of: dict[tuple[int, int], int] = {}
    seen: dict[str, tuple[int, int]] = {}
    longest = 0
    for number, row in enumerate(examples.rows, 1):
        where = f"row {number} ({row.get('trace_id') or row['question_id']})"
        pictures = 0
        for image_id, size in zip(row["image_ids"], row["image_sizes"], strict=True):
            if image_id not in seen:
                seen[image_id] = _opened(examples, image_id, where)
            if seen[image_id] != tuple(size):
                raise TrainingError(
                    f"{where}: picture {image_id} has {seen[image_id]} pixels, not {tuple(size)} "
                    "as its points were told by; import it anew"
                )
            if seen[image_id] not in tokens_of:
                tokens_of[seen[image_id]] = _tokens(examples, image_id, learner, processor)
            pictures += tokens_of[seen[image_id]]
        text = _rendered(row, processor)
        if text.count(PAD) != len(row["image_ids"]):
            raise TrainingError(
                f"{where}: its text has {text.count(PAD)} places for {len(row['image_ids'])} "
                f"pictures; a question that holds {PAD} can't be trained on, leave it out"
            )
        length = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        longest = max(longest, length + pictures - len(row["image_ids"]))
        if longest > most:
            raise TrainingError(
                f"{where}: {longest} tokens, more than {most}; nothing is cut off, so leave it out "
                "of the version, lower max_pixels, or raise the recipe's limit"
            )
    return (
        f"{len(examples.rows)} rows and {len(seen)} pictures fit, the longest has {longest} tokens"
    )


def check_overfit(trainer: Any, examples: Examples) -> str:
    """Learn one batch by heart, then put the weights back.

    Raises:
        TrainingError: nothing of it is learned, or its loss does not fall.
    """
    import torch

    dataset = examples.dataset()
    some = [dataset[i] for i in range(min(OVERFIT_ROWS, len(examples.rows)))]
    batch = trainer._prepare_inputs(trainer.data_collator(some))
    if not bool((batch["labels"] != -100).any()):
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
                f"one batch is not learned by heart: its loss went from {losses[0]:.3g} to "
                f"{losses[-1]:.3g} in {OVERFIT_STEPS} steps; check what is frozen and what is "
                "masked"
            )
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)
                weight.grad = None
        model.train(training)
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0
    return f"one batch overfits: loss {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps"


def check_rollouts(trainer: Any, asked: Examples) -> str:
    """Sample greedily, and ask the trainer's own forward pass about the same tokens.

    Raises:
        TrainingError: they disagree.
    """
    import torch
    from trl.data_utils import prepare_multimodal_messages

    dataset = asked.dataset()
    rows = [dataset[i] for i in range(min(_PROMPTS, len(asked.rows)))]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    ids, images, fields = trainer._tokenize_prompts(prompts)
    with greedy(trainer):
        completions, logprobs = trainer._generate_single_turn(ids, images, fields, 1)
    same = total = 0
    off = 0.0
    model = trainer.accelerator.unwrap_model(trainer.model)
    for i, (prompt, completion) in enumerate(zip(ids, completions, strict=True)):
        _, _, own = trainer._tokenize_prompts([prompts[i]])
        tokens = torch.tensor([[*map(int, prompt), *completion]], device=model.device)
        inputs = {
            k: torch.as_tensor(v, device=model.device)
            for k, v in own.items()
            if k in ("pixel_values", "image_grid_thw")
        }
        kinds = (tokens == trainer._image_pad_token_id).int()
        with torch.no_grad():
            logits = model(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), mm_token_type_ids=kinds,
                **inputs,
            ).logits  # fmt: skip
        after = logits[0, len(prompt) - 1 : -1].float()
        after[:, trainer._image_pad_token_id] = -torch.inf  # which no sampler may write
        wrote = torch.tensor(completion, device=model.device)
        same += int((after.argmax(-1) == wrote).sum())
        total += len(completion)
        if logprobs is not None:
            told = torch.tensor(logprobs[i], device=model.device)
            ours = after.log_softmax(-1).gather(-1, wrote[:, None])[:, 0]
            off = max(off, float((told - ours).abs().mean()))
    if same < AGREED * total or off > 0.1:
        raise TrainingError(
            f"sampler and trainer disagree: {same} of {total} greedy tokens are the trainer's "
            "likeliest; check that both have the same weights, chat template and picture sizes"
        )
    trainer._metrics["train"].clear()
    return f"sampler and trainer agree: {same} of {total} greedy tokens"


@contextmanager
def greedy(trainer: Any) -> Iterator[None]:
    """The sampler at temperature 0 and for a few tokens, whichever it is, unseen by trackers: TRL
    tells them how long sampling took, and they are met only when training begins."""
    trackers, trainer.args.report_to = trainer.args.report_to, []
    try:
        if trainer.use_vllm:  # its log-probabilities are compared instead
            yield
        else:
            with _greedy(trainer):
                yield
    finally:
        trainer.args.report_to = trackers


@contextmanager
def _greedy(trainer: Any) -> Iterator[None]:
    config = trainer.generation_config
    sampled = (trainer.temperature, trainer.max_completion_length)
    given = (config.do_sample, config.max_new_tokens, config.temperature)
    kwargs = dict(trainer.generation_kwargs)
    trainer.temperature, trainer.max_completion_length = 0.0, _TOKENS
    config.do_sample, config.max_new_tokens, config.temperature = False, _TOKENS, None
    trainer.generation_kwargs = {**kwargs, "do_sample": False, "max_new_tokens": _TOKENS}
    trainer.generation_kwargs.pop("temperature", None)
    try:
        yield
    finally:
        trainer.temperature, trainer.max_completion_length = sampled
        config.do_sample, config.max_new_tokens, config.temperature = given
        trainer.generation_kwargs = kwargs


def _context(learner: Student) -> int:
    config = read_json(learner.folder / "config.json")
    told = config.get("text_config", config).get("max_position_embeddings")
    return int(told or config.get("max_position_embeddings") or 2**31)


def _opened(examples: Examples, image_id: str, where: str) -> tuple[int, int]:
    try:
        width, height = decoded(examples.picture(image_id)).size
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(f"{where}: picture {image_id} can't be opened ({error})") from None
    return int(width), int(height)


def _tokens(examples: Examples, image_id: str, learner: Student, processor: Any) -> int:
    """How many tokens the processor makes of a picture, and that it resizes as the points say."""
    picture = decoded(examples.picture(image_id))
    images = processor.image_processor
    grid = [int(n) for n in images(images=[picture], return_tensors="pt")["image_grid_thw"][0]]
    text = f"<|vision_start|>{PAD}<|vision_end|>"
    made = processor(images=[picture], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    count = made.count(processor.tokenizer.convert_tokens_to_ids(PAD))
    vision = read_json(learner.folder / "config.json").get("vision_config", {})
    expected = grid[0] * grid[1] * grid[2] // vision.get("spatial_merge_size", 2) ** 2
    if count != expected:
        raise TrainingError(
            f"picture {image_id}: the processor writes {count} picture tokens where the model "
            f"expects {expected}; the processor's files are not this model's"
        )
    if learner.space.factor and learner.space.kind == "absolute_resized":
        from mcts.data import Image

        size = learner.space.size(Image(image_id, *picture.size))
        resized = (grid[2] * images.patch_size, grid[1] * images.patch_size)
        if size != resized:
            raise TrainingError(
                f"picture {image_id}: the processor resizes it to {resized}, but points are told "
                f"in {size}; set max_pixels in the recipe to what the processor has"
            )
    return count


def _rendered(row: dict[str, Any], processor: Any) -> str:
    """A row as the chat template writes it, pictures as single places."""
    turns = []
    for message in row.get("messages") or row["prompt"]:
        content: Any = [{"type": "text", "text": message["content"]}]
        if message["role"] == "user":
            content = [{"type": "image"} for _ in row["image_ids"]] + content
        turns.append({"role": message["role"], "content": content})
    text: str = processor.tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt="messages" not in row
    )
    return text
