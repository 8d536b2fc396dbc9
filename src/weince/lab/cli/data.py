"""`weince data`: fetch a published set of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from weince.lab.data.download import NAMES, fetch
from weince.shell.errors import UserError
from weince.shell.terminal import answered

__all__ = ["run"]

NEEDED = """\
Downloads, compares the published MD5 and unpacks, through torchvision.
Needed are a connection and room for the archive and what it unpacks to:

  cifar10        170 MB + 190 MB    from www.cs.toronto.edu
  cifar100       170 MB + 190 MB    from www.cs.toronto.edu
  stl10          2.6 GB + 3.2 GB    from ai.stanford.edu
  tiny-imagenet  250 MB + 500 MB    from cs231n.stanford.edu
  imagenet32     not fetched: given to those who log in at image-net.org

An archive that already lies in the folder, under its published name, is checked and unpacked without a connection.
"""


def run(words: Sequence[str]) -> int:
    """`weince data`; returns the exit status."""
    return answered(lambda: _data(words), "The same command starts the download again.")


def _data(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="weince data",
        description="Fetch a published set of images.",
        epilog=NEEDED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*NAMES, "imagenet32"])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder it is unpacked into (data)")
    wanted = parser.parse_args(list(arguments))
    if wanted.name not in NAMES:
        raise UserError(
            "ImageNet-32 is given to those who log in at image-net.org (downsampled images, 32x32, npz). "
            f"Unpack its train_data_batch_*.npz and val_data.npz into {wanted.data_dir}."
        )
    place = fetch(wanted.name, wanted.data_dir)
    print(f"{place} holds it: weince compare --data {wanted.name} --data-dir {wanted.data_dir}")
