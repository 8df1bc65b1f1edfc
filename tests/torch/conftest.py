"""What torch.distributed needs where there is one process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from _distributed import single_process_group


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """Without one, `dcp.save` and `dcp.load` warn that they assume a single process."""
    with single_process_group(tmp_path):
        yield
