"""WEINCE: InfoNCE that treats the hardest negatives by their distance to the cap of cosine similarity."""

from weince.gate import Gate
from weince.loss import ContestLoss, WEINCEOutput, contest_loss, query_key_loss, weince_loss
from weince.modules import (
    INFONCE,
    WEINCE,
    InfoNCELoss,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
)
from weince.queue import EmbeddingQueue
from weince.released import ReleasedTopMLoss
from weince.tail import TailFit

__version__ = "0.1.0"

__all__ = [
    "INFONCE",
    "WEINCE",
    "ContestLoss",
    "EmbeddingQueue",
    "Gate",
    "InfoNCELoss",
    "QueueLoss",
    "ReleasedTopMLoss",
    "RetrievalLoss",
    "SupervisedLoss",
    "TailFit",
    "TwoTowerLoss",
    "WEINCELoss",
    "WEINCEOutput",
    "contest_loss",
    "query_key_loss",
    "weince_loss",
]
