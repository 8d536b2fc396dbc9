"""The diagnosis where its own extra is installed and nothing of the lab's."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

PROGRAM = textwrap.dedent(
    """
    import importlib.util, sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name in {names} or name.split(".")[0] in {names}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    sys.meta_path.insert(0, Missing())
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name in {names} else found(name, package)
    from weince.__main__ import main
    sys.exit(max(main(words.split()) for words in sys.argv[1:]))
    """
)
LAB = ["lightning", "kornia", "timm", "optuna", "torchvision", "sklearn", "pydantic", "tensorboard", "weince.lab"]


def run(words: Sequence[str], folder: Path, missing: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(names=missing), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_both_commands_need_nothing_of_the_lab(tmp_path):

    np.save(tmp_path / "e.npy", np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32))
    done = run(["diagnose e.npy --anchors 200", "noise-floor --repetitions 20"], tmp_path, LAB)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "diagnosis-e" / "report.html").is_file()
    assert (tmp_path / "runs" / "noise-floor" / "noise_floor.png").is_file()


def test_a_comparisons_folder_needs_the_lab_and_says_so(tmp_path):
    (tmp_path / "digits").mkdir()
    done = run(["diagnose digits"], tmp_path, ["weince.lab"])
    assert done.returncode == 2
    assert "`file`: digits is a folder" in done.stderr
    assert "pip install 'weince[lab]'" in done.stderr


@pytest.mark.parametrize("library", ["scipy", "tyro"])
def test_what_is_missing_is_named_with_its_command(library, tmp_path):
    done = run(["diagnose e.npy"], tmp_path, [library])
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"weince.diagnosis needs {library}, which is not installed: pip install 'weince[diagnose]'"
    )


def test_a_refusal_imports_nothing_that_computes_or_draws(tmp_path):
    program = (
        "import sys\nfrom weince.__main__ import main\nbefore = set(sys.modules)\n"
        "for words in ('diagnose none.npy', 'diagnose e.npy --seed -1', 'noise-floor --seed -1'):\n"
        "    assert main(words.split()) == 2\n"
        "print(*set(sys.modules) - before)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert not {"scipy", "matplotlib", "pyarrow", "plotly", "pandas"} & set(done.stdout.split())
