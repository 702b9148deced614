"""A data set version's card: card.json for programs, README.md for people and for the hub.

write_card(card, folder)
print(readme(card))
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from warehouse.versions.certificate import told

_TOLD = {
    "grounded": "chains as they were made, those that can be told without points as well",
    "ungrounded": "the same chains without their points",
    "answers": "answers without reasoning, each once",
    "zoom": "direct chains as dialogues in which places are called for and then shown",
}


def write_card(card: dict[str, Any], folder: Path) -> None:
    """Write card.json and README.md, in place of those that are there."""
    text = json.dumps(card, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    for name, content in (("card.json", text), ("README.md", readme(card))):
        (folder / name).unlink(missing_ok=True)  # a read-only one can be replaced, not rewritten
        (folder / name).write_text(content, encoding="utf-8")


def front_matter(licences: Mapping[str, int], configs: Iterable[str]) -> list[str]:
    """The lines at the head of a README by which `datasets` and the hub find what is in a folder.

    Args:
        licences: rows by licence.
        configs: lines of YAML, the list under `configs`.
    """
    licence = next(iter(licences)).lower() if len(licences) == 1 else "other"
    return [
        "---",
        f"license: {licence if licence != 'unknown' else 'other'}",
        "task_categories: [image-text-to-text]",
        "tags: [vigorl, grounded-reasoning]",
        "configs:",
        *configs,
        "---",
        "",
    ]


def readme(card: dict[str, Any]) -> str:
    """The card as Markdown, with the front matter that `datasets.load_dataset` reads."""
    ref = f"{card['name']}@v{card['version']}"
    licences = card["licences"]
    parts = [
        *front_matter(
            licences,
            [
                "- {config_name: rows, data_files: rows.parquet, default: true}",
                "- {config_name: images, data_files: images.parquet}",
            ],
        ),
        f"# {ref}",
        "",
        f"{card['rows']} traces of {card['questions']} questions about {card['images']} images: "
        f"{_mean(card['mean_steps'])} steps and {_mean(card['mean_points'])} points a trace, "
        f"mean reward {_mean(card['mean_reward'])}.",
        "",
        f"Content hash `{card['content_hash']}`, published {card['created_at']} "
        f"by code {card['revision']}.",
        "",
        *_variant(card),
        "## What is in it",
        "",
    ]
    for column in ("task", "kind", "family", "split", "origin", "source"):
        listed = ", ".join(f"{name} {n}" for name, n in card[f"by_{column}"].items())
        parts.append(f"- {column}: {listed}")
    for title, key in (("licence", "licences"), ("licence of the images", "image_licences")):
        listed = ", ".join(f"{name} {n}" for name, n in card[key].items())
        parts.append(f"- {title}: {listed}")
    parts += [
        "",
        "Points and boxes are original pixels of the named image, x right and y down.",
        "",
        "## Who wrote it",
        "",
        "| teacher | coordinates it spoke | prompt (hash) | traces |",
        "|---|---|---|---|",
    ]
    for teacher in card["teachers"]:
        name, prompt = teacher["model"] or "unknown", teacher["prompt_hash"] or "unknown"
        parts.append(f"| {name} | {_space(teacher)} | {prompt} | {teacher['traces']} |")
    parts += ["", "## What the filters kept, of all traces of these tasks", ""]
    parts += ["| filter | kept | dropped | how it decides |", "|---|---|---|---|"]
    for row in card["funnel"]:
        how = row.get("how") or f"version {row['version']}"  # older cards have the version alone
        parts.append(f"| {row['filter']} | {row['kept']} | {row['dropped']} | {how} |")
    parts += [*_revoked(card), *_samples(card), ""]
    if "decontamination" in card:  # versions published by older code have none
        parts += told(card["decontamination"])
    versions = ", ".join(f"{name} {v}" for name, v in sorted(card["table_versions"].items()))
    parts += [
        "## How it was chosen",
        "",
        "```sql",
        card["sql"],
        "```",
        "",
        f"on table versions: {versions}.",
        "",
    ]
    return "\n".join(parts)


def _variant(card: dict[str, Any]) -> list[str]:
    """In which form its traces are told, where that is not their own."""
    if not card.get("variant"):
        return []
    left_out = card.get("left_out")
    lost = f" {left_out} of the chosen have no such form, or say what another says." * bool(
        left_out
    )
    return [f"Told as `{card['variant']}`: {_TOLD[card['variant']]}.{lost}", ""]


def _revoked(card: dict[str, Any]) -> list[str]:
    """What the statement chose and a revocation took out again."""
    rows = card.get("revoked") or []
    lines = [f"| {r['subject']} {r['value']} | {r['reason']} | {r['rows']} |" for r in rows]
    head = ["", "## Left out, because revoked", "", "| what | why | rows |", "|---|---|---|"]
    return [*head, *lines] if rows else []


def _samples(card: dict[str, Any]) -> list[str]:
    """Pictures of a few of its traces, which lie beside the card."""
    samples = card.get("samples", ())
    shown = [f"![trace {sample['trace_id']}]({sample['file']})" for sample in samples]
    return ["", "## Some of it, drawn", "", *shown] if shown else []


def _mean(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _space(teacher: dict[str, Any]) -> str:
    if not teacher["space"]:
        return "unknown"
    if teacher["min_pixels"] is None:
        return str(teacher["space"])
    return (
        f"{teacher['space']}, {teacher['min_pixels']} to {teacher['max_pixels']} pixels, "
        f"sides in multiples of {teacher['factor']}"
    )
