"""Prompts: their digests are part of search ids, and a package can add prompts by name."""

import pytest

from mcts.prompts import load_prompt


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("answer", "e9804e500c8de8acccf52b47d124ce82"),
        ("nano", "8c157475214700b0d013d706f7b02a1f"),
        ("nano-answer", "e6b3ffb4e27250d17c2e28c85bed0515"),
        ("nano-ungrounded", "51b6735800119861f4df3745dc1b067c"),
        ("points", "df7afe0de099e32198b8708696b38841"),
        ("thoughts", "edf5fbc3b0eb4a8a62dbf56bf5a1152f"),
        ("visual-search", "f704c31ba3d0a8965cee3ef9913b4bba"),
        ("web-action", "b14d18fc1efaa97017ad4247af1bde1e"),
        ("web-grounding", "4557035cc73defe5017cf50ca2b0b319"),
        ("zoom", "8f652067fa0fb509085cb2113b42e39d"),
    ],
)
def test_a_prompt_keeps_its_name_and_digest_or_its_searches_would_be_renamed(name, digest):
    assert load_prompt(name).digest == digest


@pytest.fixture
def haiku_package(tmp_path, monkeypatch):
    """An installed package with two prompts, of which one has no file."""
    folder, about = tmp_path / "haiku_package", tmp_path / "haiku_package-1.0.dist-info"
    folder.mkdir()
    about.mkdir()
    (folder / "__init__.py").touch()
    (folder / "haiku.txt").write_text("[system]\nFive.\n[user]\n{question}{choices}\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: haiku-package\nVersion: 1.0\n")
    points = "[vigorl.prompts]\nhaiku = haiku_package\nlost = haiku_package\n"
    (about / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    load_prompt.cache_clear()


def test_a_package_adds_a_prompt_by_name(haiku_package):
    prompt = load_prompt("haiku")
    assert (prompt.name, prompt.system, prompt.user) == ("haiku", "Five.", "{question}{choices}")
    assert prompt.digest == load_prompt("haiku_package:haiku.txt").digest


def test_a_missing_prompt_is_a_sentence_that_names_the_others(haiku_package):
    with pytest.raises(ValueError, match=r"no prompt named 'sonnet'; there are: .*haiku.*points"):
        load_prompt("sonnet")
    with pytest.raises(ValueError, match="the prompt 'lost' can't be read"):
        load_prompt("lost")
