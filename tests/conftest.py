"""What every test shares: one thread (on two cores the suite is ten times faster) and the real data."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def track_data() -> Path:
    """The root of the real data sets; a test that asks for it is skipped where there is none."""
    root = os.environ.get("TRACK_DATA")
    if not root:
        pytest.skip("TRACK_DATA is not set")
    return Path(root)
