"""A library that is missing, or another version of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import weince.adapters
from weince.adapters import needs

LIBRARIES = {
    "lightly": ("lightly", "lightly"),
    "open_clip": ("open_clip", "open_clip_torch"),
    "metric_learning": ("pytorch_metric_learning", "pytorch-metric-learning"),
    "sentence_transformers": ("sentence_transformers", "sentence-transformers"),
    "lightning": ("lightning", "lightning"),
}
"""Adapter -> module and distribution of its library."""


def test_a_missing_library_is_named_with_its_install_command():
    program = f"""
import sys
from importlib import import_module
for adapter, module in {[(adapter, module) for adapter, (module, _) in LIBRARIES.items()]}:
    sys.modules[module] = None
    try:
        import_module("weince.adapters." + adapter)
    except ImportError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    for text, (_, distribution) in zip(ran.stdout.splitlines(), LIBRARIES.values(), strict=True):
        assert text.startswith(f"This adapter needs {distribution}, which cannot be imported")
        assert f"pip install '{distribution}~=" in text


def test_another_version_is_warned_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weince.adapters, "version", lambda name: "1.16.2")
    with needs("lightly", tested="1.16"):
        pass
    with pytest.warns(UserWarning, match=r"tested with lightly 1\.6\. Found 1\.16\.2\."), needs("lightly", "1.6"):
        pass
