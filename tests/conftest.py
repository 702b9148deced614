"""What every test shares: no network hub, no deadlines on a busy machine."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings

settings.register_profile("vigorl", deadline=None, derandomize=True)
settings.load_profile("vigorl")
