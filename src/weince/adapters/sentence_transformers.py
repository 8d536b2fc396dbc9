"""sentence-transformers: `WEINCELoss(model)` in place of `MultipleNegativesRankingLoss(model)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from weince.adapters import needs
from weince.checks import check_flag, check_integer, check_number
from weince.contest import NO_ID, Contest
from weince.gate import Gate
from weince.options import OwnKeywords
from weince.setups import ContestLoss, both_ways, explicit_negatives, two_towers
from weince.temperature import LearnableTemperature

with needs("sentence-transformers", tested="6.2"):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.losses.gradcache import CachedLossMixin
    from sentence_transformers.base.losses.merged_forward import embed_columns
    from sentence_transformers.util import cos_sim

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CachedWEINCELoss", "WEINCELoss"]

Direction = Literal["query_to_doc", "doc_to_query"]


class WEINCELoss(nn.Module):
    """WEINCE with the signature of `MultipleNegativesRankingLoss`, for (anchor, positive[, negative, ...]) columns.

    Every anchor against the positives and negatives of the whole batch. The loss is a scalar: a dict would be summed,
    so statistics go through a hook on `inner`, or `weince.adapters.transformers.TailCallback`. The signature of the
    trainer leaves no room for sample weights and masks; equal texts are known by their tokens.

    Args:
        model: the SentenceTransformer.
        scale: 1 / tau, > 0.
        similarity_fct: cosine similarity, the only one with a cap at 1; there for the signature.
        gather_across_devices: whether candidates and statistics are those of all processes. The value is then that of
            the whole batch, theirs of the own anchors; gradients agree.
        directions: ("query_to_doc",), or with "doc_to_query" too: each with its own softmax and tail, mean of both:
            `partition_mode="per_direction"` there; a joint softmax has no tail of one anchor.
        gate: how weight and slope are measured; `weince.INFONCE` is `MultipleNegativesRankingLoss`.
        ignore_equal_texts: whether a document is no negative where its text is that of the query or of its positive, or
            where it is the positive of the same query: copies in a batch, which `BatchSamplers.NO_DUPLICATES` avoids
            within one process. Texts are compared by a 64-bit hash of their tokens.
        temperature: `weince.LearnableTemperature()`, in the place of `scale`.
        **options: further ones of `weince.Options`, as `label_smoothing`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        gate: Gate = Gate(),
        *,
        ignore_equal_texts: bool = False,
        temperature: LearnableTemperature | None = None,
        **options: Unpack[OwnKeywords],
    ) -> None:
        super().__init__()
        self.scale = check_number("scale", scale, "finite and > 0", lambda v: v > 0)
        if similarity_fct is not cos_sim:
            found = getattr(similarity_fct, "__name__", repr(similarity_fct))
            raise ValueError(f"Parameter `similarity_fct` should be cos_sim, which has a cap at 1. Found {found}.")
        if sorted(directions) not in (["query_to_doc"], ["doc_to_query", "query_to_doc"]):
            expected = '("query_to_doc",) or ("query_to_doc", "doc_to_query")'
            raise ValueError(f"Parameter `directions` should be {expected}. Found {directions!r}.")
        check_flag("ignore_equal_texts", ignore_equal_texts)
        self.model = model
        self.similarity_fct = similarity_fct
        self.gather_across_devices = gather_across_devices
        self.directions = tuple(directions)
        self.ignore_equal_texts = ignore_equal_texts
        tau = 1 / scale if temperature is None else temperature
        self.inner = ContestLoss(tau, gate, gather_distributed=gather_across_devices, **options)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Loss of tokenised columns, as the trainer gives them; labels are not read."""
        columns = list(sentence_features)
        texts = self.texts(columns)
        return self.compute_loss_from_embeddings(embed_columns(self.model, columns), texts)

    def texts(self, columns: list[dict[str, Tensor]]) -> Tensor | None:
        """Which texts are equal, int64 (columns, N); None where it does not matter."""
        return torch.stack([_text_ids(column) for column in columns]) if self.ignore_equal_texts else None

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Loss of embeddings of anchors, positives and negatives.

        Args:
            embeddings: (N, D), one tensor for each column.
            labels: the `texts`, with `ignore_equal_texts`; not read without.
        """

        def make() -> list[Contest]:
            if len(embeddings) < 2:
                raise ValueError(f"Parameter `embeddings` should have at least 2 columns. Found {len(embeddings)}.")
            query, positive, *negatives = embeddings
            own = torch.stack(negatives, dim=1) if negatives else None
            if not self.ignore_equal_texts:
                there, back = _DocumentIds(), _Ids()
            elif labels is None or labels.shape[:1] != (len(embeddings),):
                raise ValueError("Parameter `labels` should be the `texts` of all columns. Found others.")
            else:
                there, back = _ids_of_texts(labels)
            symmetric = "doc_to_query" in self.directions
            if symmetric and own is None and not self.ignore_equal_texts:
                return both_ways(two_towers(query, positive))
            contests = [explicit_negatives(query, positive, own, **there)]
            return [*contests, two_towers(positive, query, **back)] if symmetric else contests

        return self.inner.of(make).loss

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for the model card."""
        return {
            "scale": self.scale,
            "similarity_fct": "cos_sim",
            "gather_across_devices": self.gather_across_devices,
            "directions": self.directions,
            "ignore_equal_texts": self.ignore_equal_texts,
            "gate": asdict(self.inner.options.gate),
            "label_smoothing": self.inner.options.label_smoothing,
            "decoupled": self.inner.options.decoupled,
            "matmul_precision": self.inner.options.matmul_precision,
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


def _text_ids(features: dict[str, Tensor]) -> Tensor:
    """A hash of each text's tokens, int64 (N,): equal texts have equal ones, in any process and any padding."""
    if "input_ids" not in features:
        raise ValueError(f"Equal texts are known by `input_ids`, which a column has not. Found {sorted(features)}.")
    tokens = features["input_ids"].to(torch.int64)
    kept = tokens + 1 if features.get("attention_mask") is None else (tokens + 1) * features["attention_mask"]
    generator = torch.Generator().manual_seed(0)
    # Odd 64-bit factors, one for each place; sums wrap round.
    factors = torch.randint(2**62, (kept.shape[1],), generator=generator).mul_(2).add_(1)
    return (kept.to(torch.int64) * factors.to(kept.device)).sum(dim=1)


class _Ids(TypedDict, total=False):
    query_ids: Tensor
    key_ids: Tensor


class _DocumentIds(_Ids, total=False):
    negative_ids: Tensor


def _ids_of_texts(texts: Tensor) -> tuple[_DocumentIds, _Ids]:
    """Ids of three kinds, for queries against documents and for positives against queries.

    A document is no negative if it has the text of the query's positive, is the positive of the same query, or has the
    text of the query itself.
    """
    query, positive, *negatives = texts
    there = _DocumentIds(
        query_ids=torch.stack([positive, query, query], dim=1),
        key_ids=torch.stack([positive, query, positive], dim=1),
    )
    if negatives:
        own = torch.stack(negatives, dim=1)
        there["negative_ids"] = torch.stack([own, torch.full_like(own, NO_ID), own], dim=2)
    back = _Ids(
        query_ids=torch.stack([positive, query, positive], dim=1),
        key_ids=torch.stack([positive, query, query], dim=1),
    )
    return there, back


class CachedWEINCELoss(CachedLossMixin, nn.Module):
    """`WEINCELoss` through sentence-transformers' gradient cache: any batch in the memory of one mini-batch.

    Columns are embedded in mini-batches without gradient, the loss of the whole batch gives the gradient of the
    embeddings, and the mini-batches are embedded again to pass it on. The same loss and gradient, at one forward more.
    Takes what `WEINCELoss` takes, and

    Args:
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
        *,
        ignore_equal_texts: bool = False,
        temperature: LearnableTemperature | None = None,
        **options: Unpack[OwnKeywords],
    ) -> None:
        super().__init__()
        self.mini_batch_size = check_integer("mini_batch_size", mini_batch_size, 1)
        self.model = model
        more = {"ignore_equal_texts": ignore_equal_texts, "temperature": temperature, **options}
        self.loss = WEINCELoss(model, scale, similarity_fct, gather_across_devices, directions, gate, **more)
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
        columns = list(sentence_features)
        return self.forward_cached(columns, self.loss.texts(columns))

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for the model card."""
        return {**self.loss.get_config_dict(), "mini_batch_size": self.mini_batch_size}

    @property
    def citation(self) -> str:
        """BibTeX, for the model card."""
        return self.loss.citation
