"""What holds for all tests: how hypothesis chooses its examples, and that Ctrl-C can be pressed.

The same examples each time, so that a red build means a change and no luck; and as long for each as it takes:
a busy machine is no defect. `HYPOTHESIS_PROFILE=explore` looks for new ones.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    print_blob=True,
)
settings.register_profile("explore", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """What a shell runs in the background is deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
