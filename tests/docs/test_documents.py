"""Links lead somewhere, files and modules that are named exist, statements are answered."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from tests.docs.documents import DOCUMENTS, ROOT, blocks, links, spans
from tests.support.project_files import PACKAGES, pyproject
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

TOP = (*PACKAGES, "benchmarks", "tests", "docs")


def anchors(document: Path) -> set[str]:
    """The headings of a document, as links name them."""
    found = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found)
    return {heading.strip().replace(" ", "-") for heading in plain}


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_between_files_lead_somewhere(document: Path) -> None:
    for address in links(document):
        path, _, anchor = address.partition("#")
        if ":" in path:
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{named(document)} links to {address}"
        if anchor:
            assert anchor in anchors(target), f"{named(document)} links to {address}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_files_that_are_named_exist(document: Path) -> None:
    for span in spans(document):
        if re.fullmatch(rf"(?:{'|'.join(TOP)})/[\w./-]*", span) and "*" not in span:
            assert (ROOT / span).exists(), f"{named(document)} names {span}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_python_names_that_are_named_exist(document: Path) -> None:
    for span in spans(document):
        if re.fullmatch(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+", span):
            assert found(span), f"{named(document)} names {span}"


@pytest.mark.parametrize("name", ["tasks.md", "filters.md"])
def test_python_examples_run(name: str) -> None:
    """Those that need a browser aside."""
    for kind, block in blocks(ROOT / "docs" / name):
        if kind == "python" and "browser" not in block:
            exec(compile(block, name, "exec"), {})


def found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize(
    "name", ["sql.md", "datasets.md", "training.md", "grpo.md", "evaluation.md", "building.md"]
)
def test_sql_in_the_documents_is_answered(name: str, tmp_path: Path) -> None:
    """On an empty warehouse, where every table and view is there."""
    document = ROOT / "docs" / name
    statements = [
        statement
        for kind, block in blocks(document)
        if kind == "sql"
        for statement in block.split("\n\n")
    ]
    for kind, block in blocks(document):
        if kind == "sh":
            statements += re.findall(r'(?:sql|--sql) "([^"…]+)"', block)
    for statement in statements:
        query(Warehouse(str(tmp_path)), statement)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = pyproject()["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in project["authors"]
    ]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)


def test_the_site_shows_every_page() -> None:
    from docs.site_pages import PAGES

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    shown = set(re.findall(r"[\w./-]+\.md", str(navigation)))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert shown == there | set(PAGES.values())
    assert all((ROOT / source).is_file() for source in PAGES)


def test_the_folder_tree_of_the_architecture_names_what_is_there() -> None:
    (tree,) = (code for _, code in blocks(ROOT / "docs/architecture.md") if "\ntests/" in code)
    package = folder = Path()
    missing = []
    for line in tree.splitlines():
        depth = len(line) - len(line.lstrip())
        if depth > 4:  # goes on with the line above
            names: list[str] = []
        else:
            names = re.split(r"\s{2,}", line.strip())[0].split()
        if depth == 0 and names:
            package = folder = ROOT / names[0]
            missing += [line] if not package.is_dir() else []
            continue
        inside = folder if depth == 4 else package
        for name in names:
            known = inside / name if name.endswith("/") else inside / f"{name}.py"
            missing += [str(known)] if name != "..." and not known.exists() else []
            folder = known if name.endswith("/") else folder
        for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", line):
            missing += [] if list(package.rglob(f"{name}*")) else [f"{name} in {line.strip()!r}"]
    assert not missing, missing
