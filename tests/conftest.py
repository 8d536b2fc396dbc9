"""One thread for the core's tests: on busy cores, sharing a tensor of forty rows takes five times as long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    if request.path.parent == Path(__file__).parent:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
