"""WEINCE: InfoNCE that treats the hardest negatives by their distance to the cap of cosine similarity."""

from weince.gate import Gate
from weince.loss import WEINCE, InfoNCELoss, WEINCELoss, WEINCEOutput, weince_loss
from weince.released import ReleasedTopMLoss
from weince.tail import TailFit

__version__ = "0.1.0"

__all__ = [
    "WEINCE",
    "Gate",
    "InfoNCELoss",
    "ReleasedTopMLoss",
    "TailFit",
    "WEINCELoss",
    "WEINCEOutput",
    "weince_loss",
]
