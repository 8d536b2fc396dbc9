"""One thread for the core's tests: on busy cores, sharing a tensor of forty rows takes five times as long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import weince.loss

# Scripts that import Triton, without doctests.
collect_ignore = ["row_kernels/compiled.py", "row_kernels/interpreted.py"]


@pytest.fixture(autouse=True, scope="module")
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    if request.path.parent == Path(__file__).parent:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[True, False], ids=["as on a CPU", "as on a GPU"])
def tiles_pay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both answers of "auto": the path that users' machines take is tested here, whatever this machine is."""
    monkeypatch.setattr(weince.loss, "_tiles_pay", lambda contest: request.param)
    return request.param
