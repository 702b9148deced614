"""Failures of disks and object stores, each told in one sentence with its place and what to do.

    describe(error)          # "/data/…: the disk is full (No space left on device); …"; or None
    with no_panics():        # what a library prints of its own crash is kept from the terminal
        write_deltalake(...)

Nothing is lost by any of them: what is journaled or committed stays, and the same command goes on.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_GO_ON = "then give the same command again: what was done is kept"
_ADVICE = {
    errno.ENOSPC: ("the disk is full", f"free some space, {_GO_ON}"),
    errno.EDQUOT: ("the quota of the disk is used up", f"free some space, {_GO_ON}"),
    errno.EFBIG: ("a file would be larger than allowed", f"raise the limit (ulimit -f), {_GO_ON}"),
    errno.EROFS: ("the disk is read-only", "name another folder with --home, or make it writable"),
    errno.EACCES: ("permission denied", "name another folder, or have its permissions changed"),
    errno.EPERM: ("permission denied", "name another folder, or have its permissions changed"),
    errno.ENOTDIR: ("a file is where a folder should be", "name another folder, or move the file"),
    errno.EEXIST: ("a file is where a folder should be", "name another folder, or move the file"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EMFILE: ("too many files are open", f"raise the limit (ulimit -n), {_GO_ON}"),
    errno.EIO: ("the disk can't be read or written", "check it, and the warehouse with "
                                                     "`vigorl warehouse check`"),
}  # fmt: skip
_OS_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
_PATH = re.compile(r"[\"'`]?((?:file://)?/[^\"'`:;,()\n]+)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PANIC = re.compile(rb"panicked at |^note: run with `RUST_BACKTRACE|^stack backtrace:")


def describe(error: BaseException) -> str | None:
    """Describe a failure of a disk or an object store; None where it is none."""
    if sentence := _describe_store(error):
        return sentence
    path, code = None, None
    if isinstance(error, OSError):
        path, code = error.filename, error.errno
    text = str(error)
    if code is None and (found := _OS_ERROR.search(text)):
        code = int(found[1] or found[2])
    if code is None:
        by_words = {os.strerror(known).lower(): known for known in _ADVICE}
        code = next((known for words, known in by_words.items() if words in text.lower()), None)
    if code not in _ADVICE:
        return None
    if path is None and (found := _PATH.search(text)):
        path = found[1].removeprefix("file://").partition("#")[0].strip()
    what, advice = _ADVICE[code]
    if (exact := os.strerror(code)).lower() != what:
        what = f"{what} ({exact})"
    return f"{_short(path)}: {what}; {advice}" if path else f"{what}; {advice}"


def _short(path: object) -> str:
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-40:]}"


def _describe_store(error: BaseException) -> str | None:
    """Describe what an S3 client says; a table's own client says it in words only."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        code = str(response["Error"].get("Code", "an error"))
        words = str(response["Error"].get("Message", "")).strip().splitlines()
        operation = getattr(error, "operation_name", "a request")
        told = f"{code}: {words[0]}" if words and words[0] != code else code
        where = getattr(error, "place", None)
        place = f"{where}: " if where else ""
        return f"{place}the object store refuses {operation} ({told}); {_store_advice(code)}"
    if (module := sys.modules.get("botocore.exceptions")) and isinstance(
        error, module.BotoCoreError
    ):
        said = str(error).splitlines()[0]
        return f"the object store can't be used ({said}); {_store_advice('')}"
    text = str(error)
    if "Generic S3 error" in text:
        detail = " ".join(_COLOURS.sub("", text).replace("↳", ":").split())
        code = next((c for c in _STORE_CODES if c in detail), "")
        return f"the object store refuses a table's request ({detail[:300]}); {_store_advice(code)}"
    return None


_STORE_CODES = {
    "NotImplemented": "its software lacks this operation: use another store, or a folder",
    "AccessDenied": "check the credentials and what they may do in this bucket",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "log in again: the credentials have expired",
    "NoSuchBucket": "make the bucket first, or name another one",
}


def _store_advice(code: str) -> str:
    return _STORE_CODES.get(code, "check AWS_ENDPOINT_URL, the bucket's name and the credentials")


_one_at_a_time = threading.Lock()


@contextmanager
def no_panics() -> Iterator[None]:
    """Keep what a Rust library prints of its own crash off the terminal: an error follows anyway.

    It prints to file descriptor 2, which is led through a filter meanwhile.
    """
    if not _one_at_a_time.acquire(blocking=False):  # another thread's filter is there already
        yield
        return
    try:
        terminal = os.dup(2)
        source, sink = os.pipe()
        os.dup2(sink, 2)
        os.close(sink)
        passing = threading.Thread(target=_pass_on, args=(source, terminal), daemon=True)
        passing.start()
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            passing.join(1.0)  # longer only where a child process holds the other end
            os.close(terminal)
    finally:
        _one_at_a_time.release()


def _pass_on(source: int, terminal: int) -> None:
    """Write all that comes from `source` to `terminal`, without the lines of a crash."""
    crashed = False
    with os.fdopen(source, "rb", buffering=0) as stream, suppress(OSError):
        while chunk := stream.read(65536):
            if not crashed and not _PANIC.search(chunk):
                os.write(terminal, chunk)
                continue
            left = []
            for line in chunk.splitlines(keepends=True):
                begins = _PANIC.search(line) is not None
                # The lines after the first hold the reason, up to a remark about backtraces.
                if not begins and not crashed and line.strip():
                    left.append(line)
                crashed = (crashed or begins) and not line.startswith(b"note: ")
            os.write(terminal, b"".join(left))
