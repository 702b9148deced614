"""The page of configuration names every key that isn't its option's, and every variable."""

from __future__ import annotations

import re

from flows.parameters import _flag, _models, flag_of
from tests.docs.documents import ROOT
from tests.support.project_files import PACKAGES

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
TOLD_ELSEWHERE = {"VIGORL_FAILPOINT"}
"""For tests alone."""


def test_keys_that_are_not_their_options_are_named() -> None:
    other = {
        (flag, name)
        for model in _models()
        for name, field in model.model_fields.items()
        for flag in flag_of(field).names
        if flag != _flag(name)
    }
    assert other, "else the page says too much"
    section = " ".join(PAGE.partition("## A settings file")[2].split())
    found = {(flag, name) for flag, name in other if re.search(rf"`{flag}`[^,]* `{name}`", section)}
    assert found == other


def test_every_variable_is_in_the_table() -> None:
    table = PAGE.partition("## Environment")[2].partition("\n## ")[0]
    read = {
        name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r'"(VIGORL_[A-Z_]+|PREFECT_API_URL)"', path.read_text("utf-8"))
    }
    assert read and {name for name in read - TOLD_ELSEWHERE if f"`{name}`" not in table} == set()
