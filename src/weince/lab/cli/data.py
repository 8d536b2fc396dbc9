"""`weince data`: fetch a published set of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from weince.lab.data.download import ARCHIVES, fetch
from weince.shell.errors import UserError
from weince.shell.terminal import answered, bar

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince data`; returns the exit status."""
    return answered(lambda: _data(words), "The same command goes on where it was.")


def _data(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="weince data", description="Fetch a published set of images.")
    parser.add_argument("name", choices=[*ARCHIVES, "imagenet32"])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder it is unpacked into (data)")
    wanted = parser.parse_args(list(arguments))
    if wanted.name not in ARCHIVES:
        raise UserError(
            "ImageNet-32 is given to those who log in at image-net.org (downsampled images, 32x32, npz). "
            f"Unpack its train_data_batch_*.npz and val_data.npz into {wanted.data_dir}."
        )
    console = Console()
    with bar(console, "Asking", "bytes") as report:
        place = fetch(ARCHIVES[wanted.name], wanted.data_dir, report)
    console.print(f"{place} holds it: weince compare --data {wanted.name} --data-dir {wanted.data_dir}", soft_wrap=True)
