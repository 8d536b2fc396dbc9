"""A library that is missing, or another version of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import weince.adapters
from weince.adapters import needs


@pytest.mark.parametrize(
    ("adapter", "module", "distribution"),
    [
        ("lightly", "lightly", "lightly"),
        ("open_clip", "open_clip", "open_clip_torch"),
        ("metric_learning", "pytorch_metric_learning", "pytorch-metric-learning"),
        ("sentence_transformers", "sentence_transformers", "sentence-transformers"),
        ("lightning", "lightning", "lightning"),
    ],
)
def test_a_missing_library_is_named_with_its_install_command(adapter: str, module: str, distribution: str):
    program = f"import sys; sys.modules[{module!r}] = None; import weince.adapters.{adapter}"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: This adapter needs {distribution}, which cannot be imported")
    assert f"pip install '{distribution}~=" in last


def test_another_version_is_warned_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weince.adapters, "version", lambda name: "1.16.2")
    with needs("lightly", tested="1.16"):
        pass
    with pytest.warns(UserWarning, match=r"tested with lightly 1\.6\. Found 1\.16\.2\."), needs("lightly", "1.6"):
        pass
