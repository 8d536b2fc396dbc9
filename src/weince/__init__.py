"""WEINCE: InfoNCE that treats the hardest negatives by their distance to the cap of cosine similarity."""

from weince.contest import NO_ID
from weince.gate import CAUTIOUS, ENDPOINT, INFONCE, PAPER, WEIBIT, Gate
from weince.key_queue import EmbeddingQueue
from weince.loss import contest_loss, contest_output
from weince.options import Options
from weince.output import LossOutput
from weince.released import ReleasedTopMLoss
from weince.setups import (
    ContestLoss,
    InfoNCELoss,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    query_key_loss,
    weince_loss,
)
from weince.tail import TailFit
from weince.temperature import LearnableTemperature

__version__ = "0.1.0"

__all__ = [
    "CAUTIOUS",
    "ENDPOINT",
    "INFONCE",
    "NO_ID",
    "PAPER",
    "WEIBIT",
    "ContestLoss",
    "EmbeddingQueue",
    "Gate",
    "InfoNCELoss",
    "LearnableTemperature",
    "LossOutput",
    "Options",
    "QueueLoss",
    "ReleasedTopMLoss",
    "RetrievalLoss",
    "SupervisedLoss",
    "TailFit",
    "TwoTowerLoss",
    "WEINCELoss",
    "contest_loss",
    "contest_output",
    "query_key_loss",
    "weince_loss",
]
