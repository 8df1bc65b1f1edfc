"""Every test starts from the same random state."""

import random
import sys

import pytest


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    if "torch" in sys.modules:  # the core's tests run where it is not installed
        sys.modules["torch"].manual_seed(0)
