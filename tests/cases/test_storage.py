"""Stores that promise less than they seem to, and disks that take nothing more."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.project import Project
from warehouse.storage import objects
from warehouse.storage.failures import describe, no_panics

SAMPLE = "warehouse/sources/sample/rooms-train.parquet"


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, dict[str, str]]]:
    """A stand-in for S3 whose answers to conditional puts are set by `how`."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    inner, how = DomainDispatcherApplication(create_backend_app), {"answer": "keeps"}

    def application(environ, start_response):
        if how["answer"] == "forbids" and environ["REQUEST_METHOD"] == "PUT":
            start_response("403 Forbidden", [("content-type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"]
        if how["answer"] == "malformed" and environ["REQUEST_METHOD"] == "PUT":
            start_response("400 Bad Request", [("content-type", "application/xml")])
            return [
                b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message></Error>"
            ]
        if "HTTP_IF_NONE_MATCH" in environ:
            if how["answer"] == "ignores":
                del environ["HTTP_IF_NONE_MATCH"]
            elif how["answer"] == "refuses":
                start_response("501 Not Implemented", [("content-type", "application/xml")])
                return [b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"]
        return inner(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", how
    server.shutdown()


@pytest.fixture
def bucket(store, monkeypatch):
    url, how = store
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    how["answer"] = "keeps"
    boto3.client("s3").create_bucket(Bucket="bucket1")
    monkeypatch.setattr(objects, "_safe", set())
    return how


@pytest.mark.parametrize("answer", ["ignores", "refuses"])
def test_s19_s43_a_store_without_conditional_puts_is_refused_before_anything_is_written(
    project, bucket, answer
):
    bucket["answer"] = answer
    home = f"s3://bucket1/{answer}"
    ran = project.run("import", "sat2", SAMPLE, "--limit", 2, "--home", home)
    assert ran.status == 2
    assert f"vigorl: {home}: the object store does not support conditional puts" in ran.err
    assert "PutObject" in ran.err
    assert ("VIGORL_UNSAFE_SINGLE_WRITER=1" in ran.err) == (answer == "ignores")
    kept = boto3.client("s3").list_objects_v2(Bucket="bucket1", Prefix=answer)
    assert kept["KeyCount"] == 0


def test_a_request_that_a_store_takes_for_malformed_says_nothing_of_conditional_puts(bucket):
    bucket["answer"] = "malformed"
    with pytest.raises(ClientError, match="AuthorizationHeaderMalformed") as refused:
        objects.S3Objects("bucket1", "malformed").put("a", b"first")
    assert "AuthorizationHeaderMalformed" in describe(refused.value)


def test_a_single_writer_may_use_a_store_that_ignores_them(project, bucket):
    bucket["answer"] = "ignores"
    home = "s3://bucket1/one"
    one = {"VIGORL_UNSAFE_SINGLE_WRITER": "1"}
    for added in (2, 0):
        ran = project.run("import", "sat2", SAMPLE, "--limit", 2, "--home", home, **one)
        assert ran.status == 0, ran.text
        assert f"{added} questions added" in ran.out


def test_a_single_writer_never_asks_for_a_conditional_put(bucket, monkeypatch):
    monkeypatch.setenv("VIGORL_UNSAFE_SINGLE_WRITER", "1")
    bucket["answer"] = "ignores"
    store = objects.S3Objects("bucket1", "single")
    assert store.put("a", b"first")
    bucket["answer"] = "refuses"
    assert store.put("b", b"second")
    assert not store.put("a", b"other")
    assert store.get("a") == b"first"


def test_a_store_is_probed_once(project, bucket, monkeypatch):
    probes = []
    real = objects.S3Objects._probe
    monkeypatch.setattr(
        objects.S3Objects, "_probe", lambda self, place: (probes.append(place), real(self, place))
    )
    home = "s3://bucket1/kept"
    ran = project.run("import", "sat2", SAMPLE, "--limit", 2, "--home", home)
    assert ran.status == 0, ran.text
    assert probes == [home]


def test_s43_what_a_store_forbids_is_told_with_bucket_and_operation(project, bucket):
    bucket["answer"] = "forbids"
    ran = project.run("import", "sat2", SAMPLE, "--limit", 2, "--home", "s3://bucket1/x")
    assert ran.status == 1
    assert ran.err.strip().splitlines()[-1] == (
        "vigorl: s3://bucket1/x: the object store refuses PutObject (AccessDenied: no); check the "
        "credentials and what they may do in this bucket"
    )


# ---- disks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full (No space left on device); free some space"),
        (errno.EDQUOT, "the quota of the disk is used up (Disk quota exceeded); free some space"),
        (errno.EROFS, "the disk is read-only (Read-only file system); name another folder"),
        (errno.EACCES, "permission denied; name another folder"),
        (errno.ENAMETOOLONG, "the name is too long (File name too long); choose a shorter one"),
        (errno.ENOTDIR, "a file is where a folder should be"),
    ],
)
def test_s47_a_disk_that_takes_nothing_is_one_sentence(project, monkeypatch, code, words):
    def refuse(path, *_):
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(objects.os, "fsync", refuse)
    ran = project.run("import", "sat2", SAMPLE, "--limit", 2)
    assert ran.status == 1
    (line,) = [line for line in ran.err.splitlines() if "vigorl:" in line]
    assert words in line
    monkeypatch.undo()
    assert project.run("import", "sat2", SAMPLE, "--limit", 2).status == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'Failed to parse parquet: External: Generic LocalFileSystem error: Unable to write to '
            'file "/data/home/tables/runs/x.parquet": No space left on device (os error 28)',
            "/data/home/tables/runs/x.parquet: the disk is full (No space left on device); free "
            "some space, then give the "
            "same command again: what was done is kept",
        ),
        ("cannot write the journal in /data/j: [Errno 30] Read-only file system",
         "/data/j: the disk is read-only (Read-only file system); name another folder with "
            "--home, or make it writable"),
        ("IO Error: Could not write file \"/tmp/x\": No space left on device",
         "/tmp/x: the disk is full (No space left on device); free some space, then give the "
         "same command again: what was "
         "done is kept"),
        ("the schema does not match", None),
    ],
)  # fmt: skip
def test_the_words_of_a_library_about_a_disk_become_the_same_sentence(text, sentence):
    assert describe(RuntimeError(text)) == sentence


def test_a_file_where_the_warehouse_should_be_is_told(project):
    path = project.write("file", "x")
    ran = project.run("import", "sat2", SAMPLE, "--limit", 2, "--home", path)
    assert ran.status == 1
    assert "a file is where a folder should be" in ran.err


def test_a_name_that_is_too_long_is_told(project):
    ran = project.run("import", "sat2", SAMPLE, "--limit", 2, "--home", "/tmp/" + "a" * 300)
    assert ran.status == 1
    assert "the name is too long" in ran.err


def test_lines_of_a_crash_are_kept_from_the_terminal_and_others_are_not(tmp_path):
    code = (
        "import os, sys\n"
        "from warehouse.storage.failures import no_panics\n"
        "with no_panics():\n"
        "    os.write(2, b'3 of 9 trees\\n')\n"
        "    os.write(2, b\"\\nthread 'tokio-runtime-worker' panicked at src/writer.rs:1:2:\\n"
        'called unwrap on an Err\\nnote: run with `RUST_BACKTRACE=1` for more\\n")\n'
        "    os.write(2, b'4 of 9 trees\\n')\n"
        "print('the end', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if line] == [
        "3 of 9 trees",
        "4 of 9 trees",
        "the end",
    ]


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small disk")
def test_s47_a_full_disk_loses_nothing_and_the_same_command_goes_on(tmp_path, capfd):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        project, home = Project(tmp_path), disk / "home"
        words = ("import", "sat2", SAMPLE, "--home", home)
        assert project.run(*words, "--limit", 2).status == 0
        with (disk / "fill").open("wb") as fill:
            fill.write(b"\0" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 16384))
        full = project.run(*words, "--limit", 20)
        assert full.status == 1
        assert "the disk is full (No space left on device); free some" in full.err
        assert "panicked" not in capfd.readouterr().err
        (disk / "fill").unlink()
        assert project.run(*words, "--limit", 20).status == 0
        assert "everything is there" in project.run("warehouse", "check", "--home", home).out
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_panics_can_be_nested(capfd):
    with no_panics(), no_panics():
        os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"
