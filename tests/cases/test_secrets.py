"""A key opens the server, and is found nowhere afterwards."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flows.server_options import Unshown, checked_body, parsed_body
from mcts.teachers.credentials import Access, CredentialProblem, expand, mask_url, split_url
from tests.support.project import AnswerServer, Body, Project, thinking

KEY = "sk-test-9f8e7d6c5b4a39281706"
PASSWORD = "p4ssw0rd-of-the-proxy"
CUP = "<think>The cup is at {p}.</think>"
SHOW = "SELECT count(*) AS n FROM kept_traces"


class LockedServer(AnswerServer):
    """A server that wants a header, and repeats whatever it was given when it refuses."""

    def __init__(self, header: str, value: str) -> None:
        answered = thinking(CUP)

        def answer(body: Body, nth: int) -> Any:
            given = self.headers[-1].get(header, "")
            if given == value:
                return answered(body, nth)
            return 401, {"error": {"message": f"Incorrect API key provided: {given}."}}

        super().__init__(answer)


def all_bytes(folder: Path) -> bytes:
    """Every byte below a folder, and every text in its Parquet files, which are compressed."""
    import pyarrow.parquet as pq

    found = [b""]
    for path in sorted(folder.rglob("*")):
        found.append(str(path).encode())
        if path.is_file():
            found.append(path.read_bytes())
            if path.suffix == ".parquet":
                found.append(str(pq.read_table(path).to_pylist()).encode())
    return b"\n".join(found)


def assert_nowhere(secret: str, project: Project, *texts: str) -> None:
    stored = all_bytes(project.folder)
    assert secret.encode() not in stored
    assert all(secret not in text for text in texts)


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({"OPENAI_API_KEY": KEY}, ()),
        ({"VIGORL_API_KEY": KEY, "OPENAI_API_KEY": "another"}, ()),
        ({"MY_KEY": KEY, "OPENAI_API_KEY": "another"}, ("--api-key-env", "MY_KEY")),
    ],
)
def test_a_key_from_the_environment_opens_the_server_and_is_found_nowhere(
    project: Project, environment: dict[str, str], options: tuple[str, ...]
) -> None:
    project.add([{}])
    with LockedServer("authorization", f"Bearer {KEY}") as server:
        at = ("--teacher", server.url, "--space", "qwen3-vl", "--simulations", 1, *options)
        ran = project.run("build", "mine", *at, **environment)
        image = project.data / "a.png"
        space = ("--space", "qwen3-vl", "--out", project.data / "o.png", *options)
        asked = project.run("ask", server.url, image, "Is it?", *space, **environment)
    assert ran.status == 0 and project.sql(SHOW)[0]["n"], ran.text
    assert asked.status == 0, asked.text
    assert_nowhere(KEY, project, ran.text, asked.text)


def test_a_key_that_a_server_repeats_in_its_refusal_is_masked(project: Project) -> None:
    project.add([{}])
    with LockedServer("authorization", "Bearer another") as server:
        at = ("--teacher", server.url, "--space", "qwen3-vl")
        ran = project.run("build", "mine", *at, OPENAI_API_KEY=KEY)
        none = project.run("build", "mine", *at, OPENAI_API_KEY="", VIGORL_API_KEY="")
    assert ran.status and "Incorrect API key provided: Bearer ***" in ran.err
    assert_nowhere(KEY, project, ran.text)
    assert none.status and "VIGORL_API_KEY" in none.err


def test_a_password_in_the_url_is_sent_and_stored_nowhere(project: Project) -> None:
    import base64

    project.add([{}], split="train")
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    with LockedServer("authorization", f"Basic {basic}") as server:
        for given in (PASSWORD, "$PROXY_PASSWORD"):
            url = server.url.replace("://", f"://me:{given}@")
            at = ("--teacher", url, "--space", "qwen3-vl", "--simulations", 1)
            ran = project.run("build", "mine", *at, PROXY_PASSWORD=PASSWORD)
            assert ran.status == 0, ran.text
            assert_nowhere(PASSWORD, project, ran.text)
            assert_nowhere(basic, project, ran.text)
        again = project.run("build", "mine", *at[:2], *at[2:], PROXY_PASSWORD=PASSWORD)
    assert "0 requests to the teacher" in again.err, "a search's name does not hold the password"
    params = project.sql("SELECT params FROM runs WHERE kind = 'build' ORDER BY created_at")
    assert "me:***@" in params[0]["params"] and "me:$PROXY_PASSWORD@" in params[1]["params"]
    masked = server.url.replace("://", "://me:***@")
    ran = project.run("build", "mine", "--teacher", masked, "--space", "qwen3-vl")
    assert ran.status == 2 and "give it again" in ran.err
    wrong = project.run("build", "mine", "--teacher", f"me:{PASSWORD}@host:80")
    assert wrong.status == 2 and PASSWORD not in wrong.text


def test_a_header_names_its_variable(project: Project) -> None:
    project.add([{}])
    with LockedServer("x-team-key", KEY) as server:
        at = ("--teacher", server.url, "--space", "qwen3-vl", "--simulations", 1)
        given = ("--server-header", "x-team-key=$TEAM_KEY", "--server-header", "x-title=mine")
        ran = project.run("build", "mine", *at, *given, TEAM_KEY=KEY)
        config = project.write(
            "run.yaml", "headers: {x-team-key: $TEAM_KEY}\nbody: {top_k: 20}\nserver_can: n,seed\n"
        )
        file = project.run("build", "mine", *at, "--config", config, TEAM_KEY=KEY)
        missing = project.run("build", "mine", *at, *given)
    assert ran.status == 0 and file.status == 0, ran.text + file.text
    assert server.headers[-1]["x-team-key"] == KEY and server.requests[-1]["top_k"] == 20
    assert_nowhere(KEY, project, ran.text, file.text)
    assert missing.status == 2 and "TEAM_KEY" in missing.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--server-header", f"Authorization=Bearer {KEY}"), "--api-key-env"),
        (("--server-header", f"x-goog-api-key={KEY}"), "x-goog-api-key=$THAT_VARIABLE"),
        (("--server-header", f"x-anything={KEY}"), "looks like a secret"),
        (("--api-key-env", KEY), "never the key itself"),
        (("--api-key-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (("--server-body", "n=3"), "n is decided by"),
        (("--server-body", 'provider={"order": ['), "provider: its value is no JSON"),
        (("--server-body", "chat_template_kwargs=False"), "its value is no JSON"),
        (("--server-body", f"api_key={KEY}"), "--server-header"),
    ],
)
def test_a_secret_is_never_taken_where_it_would_be_stored(
    project: Project, options: tuple[str, ...], sentence: str
) -> None:
    project.add([{}])
    at = ("--teacher", "http://127.0.0.1:9", "--space", "qwen3-vl")
    ran = project.run("build", "mine", *at, *options)
    assert ran.status == 2 and sentence in ran.err, ran.text
    assert KEY not in ran.text


def test_a_body_field_is_json_or_a_text_and_nothing_else() -> None:
    given = ("a=off", "b=0123", 'c="5"', "d=5", "e=low", "f= true", 'g={"h": [1]}', "i=a=b")
    assert parsed_body(checked_body(given)) == {
        "a": "off", "b": "0123", "c": "5", "d": 5, "e": "low", "f": True, "g": {"h": [1]},
        "i": "a=b",
    }  # fmt: skip
    in_file = {"a": "5", "b": False, "c": None, "d": {"e": "no"}}
    assert parsed_body(checked_body(in_file)) == in_file
    # YAML makes a date of an unquoted one, which JSON has no word for.
    assert parsed_body(checked_body({"until": date(2026, 11, 28)})) == {"until": "2026-11-28"}
    assert list(checked_body({"a": "é"})) == ['a="é"']
    for no_field in ("low", "=low", " ="):
        with pytest.raises(Unshown, match="a field of the body is KEY=JSON"):
            checked_body((no_field,))


def test_urls_are_masked_and_references_stay() -> None:
    assert mask_url("http://me:pw@a:1,http://you:$P@b/v1") == "http://me:***@a:1,http://you:$P@b/v1"
    assert mask_url("https://h/v1?api-version=1&api-key=abc") == (
        "https://h/v1?api-version=1&api-key=***"
    )
    assert mask_url("me:pw@host:80") == "me:***@host:80"
    assert mask_url("an e-mail is me@example.org") == "an e-mail is me@example.org"
    assert split_url("http://me:p%40w@h:1/v1") == ("http://h:1/v1", "me:p@w")
    assert split_url("http://h:1/v1") == ("http://h:1/v1", "")
    assert expand("Bearer $A$$", {"A": " x\n"}) == "Bearer x$"
    with pytest.raises(CredentialProblem, match="no variable B"):
        expand("${B}", {})


def test_a_short_key_is_no_word_of_an_answer() -> None:
    access = Access("EMPTY")
    assert access.masked({"content": "The EMPTY box"}) == {"content": "The EMPTY box"}
    assert access.mask("Incorrect key: EMPTY") == "Incorrect key: ***"
    long = Access(KEY, {"x-key": "$K"}, environ={"K": "another-secret-value"})
    assert long.masked([{"a": f"<{KEY}>", "b": 1}]) == [{"a": "<***>", "b": 1}]
    assert "another" not in long.mask("another-secret-value") and KEY not in repr(long)
