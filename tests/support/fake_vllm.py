"""What plays vLLM where there is none: its command line, its pages, and the stub server's answers.

    FAKE_VLLM=deaf,slow python tests/support/fake_vllm.py serve MODEL --port 8000
    --served-model-name NAME

`$FAKE_VLLM` is how it behaves: `slow` to start, `dies` while it starts, `silent` for ever, `deaf`
to SIGTERM. It always starts a second process, as vLLM starts its engine, and writes down the ids of
both, with its arguments, in `$FAKE_VLLM_NOTE`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import stub_server


class Handler(stub_server._Handler):
    def do_GET(self) -> None:  # noqa: N802
        if self.path == "/health":
            return self.send(200, b"")
        if self.path == "/v1/models":  # as vLLM: the root is where the weights came from
            return self.reply(200, {"data": [{"id": self.stub.model, "root": sys.argv[2]}]})
        super().do_GET()


def main() -> None:
    how, arguments = os.environ.get("FAKE_VLLM", "").split(","), sys.argv[1:]
    engine = subprocess.Popen(["sleep", "300"])
    note = {"server": os.getpid(), "engine": engine.pid, "arguments": arguments}
    path = Path(os.environ["FAKE_VLLM_NOTE"])
    path.with_suffix(".new").write_text(json.dumps(note))
    path.with_suffix(".new").replace(path)
    print("INFO loading weights", flush=True)
    if "dies" in how:
        print(
            "ERROR ValueError: no room for the weights\n\nRuntimeError: engine failed", flush=True
        )
        sys.exit(1)
    if "deaf" in how:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "slow" in how:
        time.sleep(1)
    if "silent" not in how:
        given = dict(pairwise(arguments))
        stub_server._Handler = Handler
        port, name = int(given["--port"]), given["--served-model-name"]
        stub_server.StubServer(port=port, host=given["--host"], model=name).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
