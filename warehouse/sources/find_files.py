"""Finds the files of a dataset as published, and the split that each belongs to.

    found = find_readers("blink", "BLINK/", split="validation")
    for read, split in found: …          # a function that reads the file anew, and its split
    found.remarks                        # sentences: what was left out, and why

What lies beside the data is no data: JSON, JSON lines and tables without the columns that are
needed (prompts, descriptions, results), and whatever a download leaves (`.cache`, `.git`). `dev` is
validation only where there is no validation of its own. In a folder whose files name their splits,
one that names none belongs to the task's own split, and without that it is left out. Links to
folders are followed, each folder once; a warehouse among them is no data. Files that are missing of
those that names count (`-of-00002`), and links that lead nowhere, are told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mcts.names import check_name
from warehouse.sources import find_task
from warehouse.sources.benchmarks.sat import OBJECTS_SUFFIX
from warehouse.sources.reading.drafts import (
    Draft,
    ImportProblem,
    OtherFile,
    OtherSet,
    ReadContext,
    Readers,
    ReadFile,
    Reject,
)
from warehouse.sources.reading.tabular import read_rows, suffix_of
from warehouse.sources.tasks import Task

Outcomes = Iterator[Draft | Reject]
_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test|gate)(?![a-z])", re.IGNORECASE)
_SHARD = re.compile(r"(.*?)(\d{2,})-of-(\d{2,})(\..+)")
_BESIDE = (".json", ".jsonl", ".csv", ".tsv")
"""Kinds of file that lie beside data and are none."""


@dataclass(slots=True)
class FoundFiles:
    """The files to read."""

    readers: list[tuple[Callable[[], Outcomes], str]] = field(default_factory=list)
    """For each a function that reads it anew, and its split."""
    remarks: list[str] = field(default_factory=list)
    """What was left out and why; complete once the files have been read."""
    others: list[OtherFile] = field(default_factory=list)
    """Files that turned out to be no data, once they have been read."""

    def __iter__(self) -> Iterator[tuple[Callable[[], Outcomes], str]]:
        return iter(self.readers)

    def remark(self, sentence: str) -> None:
        if sentence not in self.remarks:  # files are read twice
            self.remarks.append(sentence)


def find_readers(
    task: str,
    path: str | Path,
    split: str | None = None,
    image_root: str | Path | None = None,
    columns: Readers | None = None,
) -> FoundFiles:
    """Find the files to read, each with its split.

    Raises:
        ImportProblem: no such task, file or split.
    """
    if task:  # reference-trees has none before its answers are known
        try:
            check_name("task", task)
        except ValueError as error:
            raise ImportProblem(str(error)) from None
    reader = find_task(task) if columns is None else Task(task, formats=columns.formats())
    context = ReadContext(task, Path(image_root) if image_root else None)
    found, path = FoundFiles(), Path(path)
    if path.is_file():
        files = [_single(path, reader, split)]
        has_validation = _has_validation([path, *_beside(path)])
    elif path.is_dir():
        files, has_validation = _within(path, reader, split, found)
    else:
        raise ImportProblem(f"{path} does not exist")
    context = replace(context, files=tuple(file for file, _ in files))
    wanted, folder = _wanted(split, has_validation), path if path.is_dir() else None
    for file, file_split in files:
        if not file_split:
            raise ImportProblem(f"{file}: its name has no split; say with --split which it is")
        rows = _RowSplits(file, wanted, has_validation)
        read = reader.formats[suffix_of(file)]

        def outcomes(file: Path = file, read: ReadFile = read, rows: _RowSplits = rows) -> Outcomes:
            name = str(file.relative_to(folder)) if folder else file.name
            try:
                for one in map(rows.place, read(file, context)):
                    yield replace(one, file=name) if one.file == file.name != name else one
            except OtherFile as problem:
                other_set = isinstance(problem, OtherSet)
                if not folder or not (other_set or suffix_of(file) in _BESIDE):
                    raise
                found.others.append(problem)
                found.remark(f"left out{'' if other_set else ', as it is no data'}: {problem}")

        found.readers.append((outcomes, file_split))
    return found


def normalize_split(word: str) -> str:
    """The split that a word means, as stored in `questions.split`: `val` is `validation`."""
    return _SPLITS.get(word.lower(), word)


def split_in_name(name: str) -> str | None:
    """The split in a file name: train-00000-of-00004.parquet, SAT_val.parquet, …; else None."""
    found = {normalize_split(word) for word in _words(name)}
    return found.pop() if len(found) == 1 else None


@dataclass(slots=True)
class _RowSplits:
    """The splits that the rows of one file name."""

    file: Path
    wanted: str | None
    has_validation: bool
    in_rows: bool | None = None
    """Whether rows of it are validation; None while that is not known."""

    def place(self, one: Draft | Reject) -> Draft | Reject:
        """Give a draft the split that its row names; leave it out where another is wanted."""
        if not isinstance(one, Draft) or not one.split:
            return one
        split = one.split.lower()
        if split != "dev" or not self._validation_beside():
            split = normalize_split(split)
        if self.wanted and split != self.wanted:
            return Reject(one.file, one.row, "split", f"its split is {split}", left_out=True)
        return replace(one, split=split)

    def _validation_beside(self) -> bool:
        if self.in_rows is None and not self.has_validation:
            rows = read_rows(self.file, ["split"])
            named = (row.get("split") for _, row in rows if isinstance(row, dict))
            self.in_rows = any(_is_validation(str(name)) for name in named)
        return self.has_validation or bool(self.in_rows)


def _single(path: Path, reader: Task, split: str | None) -> tuple[Path, str]:
    """A file that was named: it belongs to the split that was given, whatever its name."""
    if suffix_of(path) not in reader.formats:
        formats = ", ".join(sorted(reader.formats))
        raise ImportProblem(f"{path}: {reader.name} is read from {formats}")
    files = [path, *_beside(path)]
    wanted = _wanted(split, _has_validation(files))
    return path, wanted or _name_split(path.name, _has_validation(files)) or reader.split


def _within(
    folder: Path, reader: Task, split: str | None, found: FoundFiles
) -> tuple[list[tuple[Path, str]], bool]:
    """The data files of a folder with their splits, and whether it has a validation of its own."""
    formats = ", ".join(sorted(reader.formats))
    every = [p for p in _files_below(folder) if suffix_of(p) in reader.formats]
    every = [p for p in every if not p.name.endswith(OBJECTS_SUFFIX)]
    for broken in (p for p in every if not p.is_file()):
        found.remark(f"left out: {broken}: it is a link to a file that is not there")
    every = [p for p in every if p.is_file()]
    if not every:
        raise ImportProblem(f"{folder} holds no {formats} file")
    names = {file: _names(file, folder) for file in every}
    has_validation = any(map(_is_validation, (w for f in every for w in _first_words(names[f]))))
    wanted = _wanted(split, has_validation)
    splits = {
        file: next((s for n in names[file] if (s := _name_split(n, has_validation))), None)
        for file in every
    }
    named = any(splits.values())
    chosen: list[tuple[Path, str]] = []
    for file in every:
        file_split = splits[file] or (reader.split if named else wanted or reader.split)
        if named and not file_split:
            found.remark(
                f"left out: {file}: its name says no split, which others here do; import it by "
                "itself, with --split"
            )
        elif wanted is None or not file_split or file_split == wanted:
            chosen.append((file, file_split))
    if has_validation and "dev" in splits.values():
        many = sum(s == "dev" for s in splits.values())
        found.remark(
            f"files of the split dev ({many}) are not validation, which {folder} has as well"
        )
    if not chosen:
        raise ImportProblem(f"{folder} holds no file of the split {split}")
    for sentence in _missing_shards([file for file, _ in chosen]):
        found.remark(sentence)
    return chosen, has_validation


def _files_below(folder: Path) -> list[Path]:
    """Every file, or link to one, that is not hidden nor in a hidden folder or a warehouse."""
    found: list[Path] = []
    seen: set[str] = set()
    linked = [folder]
    while linked:  # what is there comes before what is linked, so that it keeps its own name
        for above, folders, files in os.walk(linked.pop(0)):
            real = os.path.realpath(above)
            if real in seen or any(Path(above).glob("tables/*/_delta_log")):
                folders.clear()
                continue
            seen.add(real)
            found += (Path(above, name) for name in files if not name.startswith("."))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            linked += (p for name in folders if (p := Path(above, name)).is_symlink())
    return sorted(found)


def _missing_shards(files: list[Path]) -> list[str]:
    """A sentence for each set of files of which names count more than are there."""
    sets: dict[tuple[Path, str, str, str], set[int]] = {}
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            key = (file.parent, shard[1], shard[3], shard[4])
            sets.setdefault(key, set()).add(int(shard[2]))
    found = []
    for (folder, begin, many, end), numbers in sets.items():
        first = int(int(many) in numbers and 0 not in numbers)  # some count from 1
        missing = [n for n in range(first, int(many) + first) if n not in numbers]
        if missing:
            width = len(many)
            name = folder / f"{begin}{missing[0]:0{width}}-of-{many}{end}"
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            found.append(
                f"{len(numbers)} of {int(many)} files are there of a set in {folder}: missing are "
                f"{name.name}{more}"
            )
    return found


def _names(file: Path, folder: Path) -> list[str]:
    """A file's name, and the names of its folders from the nearest on."""
    return [file.name, *(f"{part}." for part in reversed(file.relative_to(folder).parts[:-1]))]


def _first_words(names: list[str]) -> list[str]:
    return next((words for name in names if (words := _words(name))), [])


def _words(name: str) -> list[str]:
    return [word.lower() for word in _SPLIT.findall(name.rpartition(".")[0])]


def _name_split(name: str, has_validation: bool) -> str | None:
    """The split in a name; `dev` is one of its own where there is a validation as well."""
    if has_validation and set(_words(name)) == {"dev"}:
        return "dev"
    return split_in_name(name)


def _wanted(split: str | None, has_validation: bool) -> str | None:
    if not split:
        return None
    return "dev" if split.lower() == "dev" and has_validation else normalize_split(split)


def _beside(path: Path) -> tuple[Path, ...]:
    """The files of the same kind in a file's folder."""
    return tuple(p for p in path.parent.glob(f"*{path.suffix}") if not p.name.startswith("."))


def _has_validation(files: list[Path]) -> bool:
    """Whether one of these files says that it is validation."""
    return any(_is_validation(word) for file in files for word in _words(file.name))


def _is_validation(word: str) -> bool:
    return word.lower() != "dev" and normalize_split(word.lower()) == "validation"
