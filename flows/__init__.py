"""The application: settings, stages, flows and the command line.

Nothing is reported home (SECURITY.md): the switches of the libraries that would are set here,
before any of them is imported. A value of your own environment wins.
"""

import os

for _switch, _value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_switch, _value)
