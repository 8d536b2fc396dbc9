"""Where a number comes from: date, commit, device and versions."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from weince.shell.words import count

__all__ = ["provenance"]

LAB = ("lightning", "kornia", "timm", "scikit-learn")
"""What a comparison is made with."""


def provenance(device: torch.device, libraries: Sequence[str] = LAB) -> dict[str, str | None]:
    """What made a number on `device`, now.

    Args:
        device: it was made on.
        libraries: whose versions are told, beside Python's, torch's and this package's.

    Returns:
        date (UTC), commit (with a note where the package has uncommitted changes; None where it is installed without
        its repository), device, and versions.
    """
    cpu = f"CPU ({platform.machine()}, {count(torch.get_num_threads(), 'thread')})"
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "python": platform.python_version(),
        **_versions(("weince", "torch", *libraries)),
    }


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in libraries:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails where the repository around is somebody else's
        return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
