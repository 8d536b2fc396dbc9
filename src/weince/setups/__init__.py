"""The setups: where InfoNCE is used, one file each: a function from embeddings to a `Contest`, and its loss.

Each takes embeddings of any scale and any floating-point dtype, and refuses wrong shapes by name. All take

    sample_weight   (N,), >= 0, how much each example counts
    ignored         bool, True is a pair that takes no part: a known false negative
    ids             integers, (N,) or (N, C): two rows with an equal id, in any of the C columns, are never each other's
                    negatives: copies of one text, views of one page. `NO_ID` equals none.

Masks speak of the pairs of one process; ids are compared across processes too.

    criterion(embeddings, ...) -> loss          criterion.output(embeddings, ...) -> LossOutput, the whole of it

All losses take the same options. Each holds a `ContestLoss` as `.inner`; a forward hook on it sees contests, weights
and fits as they are computed.
"""

from weince.gate import CAUTIOUS, ENDPOINT, INFONCE, PAPER, WEIBIT
from weince.setups.contest_loss import ContestLoss, SetupLoss
from weince.setups.given import Given, LabelGiven, PairGiven, RetrievalGiven
from weince.setups.labels import SupervisedLoss, labelled
from weince.setups.momentum_queue import QueueLoss, queued
from weince.setups.retrieval import RetrievalLoss, explicit_negatives, query_key_loss
from weince.setups.two_towers import TwoTowerLoss, both_ways, swapped, two_towers
from weince.setups.two_views import InfoNCELoss, WEINCELoss, two_views, weince_loss

__all__ = [
    "CAUTIOUS",
    "ENDPOINT",
    "INFONCE",
    "PAPER",
    "WEIBIT",
    "ContestLoss",
    "Given",
    "InfoNCELoss",
    "LabelGiven",
    "PairGiven",
    "QueueLoss",
    "RetrievalGiven",
    "RetrievalLoss",
    "SetupLoss",
    "SupervisedLoss",
    "TwoTowerLoss",
    "WEINCELoss",
    "both_ways",
    "explicit_negatives",
    "labelled",
    "query_key_loss",
    "queued",
    "swapped",
    "two_towers",
    "two_views",
    "weince_loss",
]
