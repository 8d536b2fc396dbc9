"""sentence-transformers: `WEINCELoss(model)` in place of `MultipleNegativesRankingLoss(model)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weince.adapters import needs
from weince.checks import check_number
from weince.gate import Gate
from weince.loss import ContestLoss
from weince.settings import explicit_negatives, two_towers

with needs("sentence-transformers", tested="6.2"):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.losses.gradcache import CachedLossMixin
    from sentence_transformers.util import cos_sim

__all__ = ["CachedWEINCELoss", "WEINCELoss"]

Direction = Literal["query_to_doc", "doc_to_query"]


class WEINCELoss(nn.Module):
    """WEINCE with the signature of `MultipleNegativesRankingLoss`, for (anchor, positive[, negative, ...]) columns.

    Every anchor against the positives and negatives of the whole batch. The loss is a scalar: a dict would be summed,
    so statistics go through a hook on `inner`.

    Args:
        model: the SentenceTransformer.
        scale: 1 / tau, > 0.
        similarity_fct: cosine similarity, the only one with a cap at 1; there for the signature.
        gather_across_devices: whether candidates and statistics are those of all processes. The value is then that of
            the whole batch, theirs of the own anchors; gradients agree.
        directions: ("query_to_doc",), or with "doc_to_query" too: each with its own softmax and tail, mean of both:
            `partition_mode="per_direction"` there; a joint softmax has no tail of one anchor.
        gate: how weight and slope are measured; `weince.INFONCE` is `MultipleNegativesRankingLoss`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        gate: Gate = Gate(),
    ) -> None:
        super().__init__()
        check_number("scale", scale, "finite and > 0", lambda v: v > 0)
        if similarity_fct is not cos_sim:
            found = getattr(similarity_fct, "__name__", repr(similarity_fct))
            raise ValueError(f"Parameter `similarity_fct` should be cos_sim, which has a cap at 1. Found {found}.")
        if sorted(directions) not in (["query_to_doc"], ["doc_to_query", "query_to_doc"]):
            expected = '("query_to_doc",) or ("query_to_doc", "doc_to_query")'
            raise ValueError(f"Parameter `directions` should be {expected}. Found {directions!r}.")
        self.model = model
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.gather_across_devices = gather_across_devices
        self.directions = tuple(directions)
        self.inner = ContestLoss(1 / scale, gate, gather_distributed=gather_across_devices)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Loss of tokenised columns, as the trainer gives them; labels are not read."""
        embeddings = [self.model(column)["sentence_embedding"] for column in sentence_features]
        return self.compute_loss_from_embeddings(embeddings, labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Loss of embeddings (N, D) of anchors, positives and negatives, a tensor for each column."""
        if len(embeddings) < 2:
            raise ValueError(f"Parameter `embeddings` should have at least 2 columns. Found {len(embeddings)}.")
        query, positive, *negatives = embeddings
        own = torch.stack(negatives, dim=1) if negatives else None
        contests = [explicit_negatives(query, positive, own)]
        if "doc_to_query" in self.directions:
            contests.append(two_towers(positive, query))
        return torch.stack([self.inner(contest).loss for contest in contests]).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for the model card."""
        return {
            "scale": self.scale,
            "similarity_fct": "cos_sim",
            "gather_across_devices": self.gather_across_devices,
            "directions": self.directions,
            "gate": asdict(self.inner.gate),
        }

    @property
    def citation(self) -> str:
        """BibTeX, for the model card."""
        return """
@inproceedings{erol2026weince,
    title={When Softmax Fails at the Top: Extreme-Value Corrections for InfoNCE},
    author={Erol and Evren and Ozel and Morgan and Ryu and Zheng},
    booktitle={International Conference on Machine Learning},
    year={2026},
    eprint={2606.00262},
    archivePrefix={arXiv},
}
"""


class CachedWEINCELoss(CachedLossMixin, nn.Module):
    """`WEINCELoss` through sentence-transformers' gradient cache: any batch in the memory of one mini-batch.

    Columns are embedded in mini-batches without gradient, the loss of the whole batch gives the gradient of the
    embeddings, and the mini-batches are embedded again to pass it on. The same loss and gradient, at one forward more.

    Args:
        model, scale, similarity_fct, gather_across_devices, directions, gate: as in `WEINCELoss`.
        mini_batch_size: rows embedded at a time.
        mini_batch_num_tokens: tokens embedded at a time, instead of rows.
        show_progress_bar: whether to show one.

    Source: arXiv:2101.06983 (gradient cache).
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        show_progress_bar: bool = False,
        gate: Gate = Gate(),
    ) -> None:
        super().__init__()
        check_number("mini_batch_size", mini_batch_size, "an integer >= 1", lambda v: v >= 1 and v == int(v))
        self.model = model
        self.loss = WEINCELoss(model, scale, similarity_fct, gather_across_devices, directions, gate)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar

    @property
    def inner(self) -> ContestLoss:
        """The core's module, to hook."""
        return self.loss.inner

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Loss of the embeddings of all mini-batches, and their gradient where it is asked for."""
        loss = self.loss.compute_loss_from_embeddings([torch.cat(column) for column in reps], labels)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Loss of tokenised columns, as the trainer gives them; labels are not read."""
        return self.forward_cached(sentence_features, labels)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for the model card."""
        return {**self.loss.get_config_dict(), "mini_batch_size": self.mini_batch_size}

    @property
    def citation(self) -> str:
        """BibTeX, for the model card."""
        return self.loss.citation
