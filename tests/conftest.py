"""What every test shares: no network hub, no curves among the user's, no deadlines."""

import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")

from hypothesis import settings

settings.register_profile("vigorl", deadline=None, derandomize=True)
settings.load_profile("vigorl")


def pytest_unconfigure() -> None:
    """Leave no curves behind."""
    shutil.rmtree(os.environ["TRACKIO_DIR"], ignore_errors=True)
