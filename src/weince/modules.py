"""The losses people call: one thin module a setup.

    criterion(embeddings, ...) -> loss          criterion.output(embeddings, ...) -> LossOutput, the whole of it

All take the same options. Each holds a `ContestLoss` as `.inner`; a forward hook on it sees contests, weights and fits
as they are computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import torch
from torch import Tensor, nn

from weince.checks import check_flag, check_labels
from weince.contest import Contest
from weince.gate import Gate
from weince.key_queue import EmbeddingQueue
from weince.loss import contest_output, validated
from weince.options import Keywords, Options, Reduction
from weince.output import LossOutput, mean_of
from weince.setups import (
    Given,
    LabelGiven,
    PairGiven,
    RetrievalGiven,
    explicit_negatives,
    labelled,
    queued,
    swapped,
    two_towers,
    two_views,
)
from weince.temperature import LearnableTemperature, Temperature, check_temperature

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "INFONCE",
    "ContestLoss",
    "InfoNCELoss",
    "QueueLoss",
    "RetrievalLoss",
    "SupervisedLoss",
    "TwoTowerLoss",
    "WEINCELoss",
]

INFONCE = Gate(evidence=0.0, slope=1.0)
"""The gate that makes any of these losses plain InfoNCE: weight 0, and no fit."""

P = ParamSpec("P")


def _takes_what(output: Callable[P, LossOutput]) -> Callable[[Any], Callable[P, Tensor]]:
    """Gives a method the signature of `output`, for readers and for type checkers."""

    def of(method: Any) -> Any:
        return functools.wraps(output, assigned=("__doc__",), updated=())(method)

    return of


class ContestLoss(nn.Module):
    """`contest_output` as a module. Every loss holds one as `.inner`: a forward hook on it sees contest and output.

    Args:
        temperature: tau, > 0: a number, an nn.Parameter, or `LearnableTemperature()`.
        gate: as in `Options`.
        reduction: as in `Options`.
        **options: the others of `Options`.
    """

    temperature: Any

    def __init__(
        self,
        temperature: Temperature = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__()
        self.options = Options(gate, reduction, **options)
        temperature = check_temperature(temperature, to_keep=True)
        if isinstance(temperature, Tensor) and not isinstance(temperature, nn.Parameter):
            self.register_buffer("temperature", temperature)  # moves and is saved with the module
        else:
            self.temperature = temperature

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """The output of a contest; a temperature given here takes the place of the module's own."""
        return contest_output(contest, self.temperature if temperature is None else temperature, self.options)

    def of(
        self,
        make: Callable[[], Sequence[Contest]],
        temperature: Callable[[], Temperature | None] = lambda: None,
        **embeddings: Tensor | None,
    ) -> LossOutput:
        """The mean over contests that are still to be made: what is refused, is refused on every process.

        Args:
            make: makes them of what was given.
            temperature: in the place of the module's own.
            embeddings: what was given, by name, for `check_finite`.
        """
        own: list[Temperature | None] = []

        def made() -> Sequence[Contest]:
            own.append(temperature())
            return make()

        contests = validated(made, self.options, **embeddings)
        return mean_of([self(contest, own[0]) for contest in contests])

    if TYPE_CHECKING:

        def __call__(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput: ...

    def extra_repr(self) -> str:
        shown = self.temperature
        if isinstance(shown, LearnableTemperature):  # shown as a part
            return self.options.told()
        if isinstance(shown, Tensor) and shown.device.type != "meta":
            shown = shown.item()
        return f"temperature={shown}, {self.options.told()}"


class SetupLoss(nn.Module):
    """What all setups share.

    Args:
        temperature: tau, > 0: a number, an nn.Parameter, or `LearnableTemperature()`. Tune it.
        gate: how weight and slope are measured on the batch; `INFONCE` for plain InfoNCE.
        reduction: "mean", "sum" or "none" over the anchors.
        **options: `eps`, `label_smoothing`, `check_finite`, `implementation`, `gather_distributed`, `group`, as in
            `Options`.

    Attributes:
        inner: the ContestLoss that computes the whole output.
    """

    def __init__(
        self,
        temperature: Temperature = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__()
        self.inner = ContestLoss(temperature, gate, reduction, **options)

    def output(self, *inputs: Any, **given: Any) -> LossOutput:
        """The whole of what a call returns the loss of; it takes the same."""
        raise NotImplementedError

    def __init_subclass__(cls) -> None:
        """Gives each setup a `forward` with the signature of its `output`, which torch.export reads."""
        super().__init_subclass__()

        @_takes_what(cls.output)
        def forward(self: SetupLoss, *inputs: Any, **given: Any) -> Tensor:
            return self.output(*inputs, **given).loss

        cls.forward = forward


class WEINCELoss(SetupLoss):
    """WEINCE of two views: `criterion(z_a, z_b)` -> scalar. See `weince_loss` for the equation and the errors.

    Args: as in `SetupLoss`; the reduction is over 2N anchors.

    Examples:
        >>> criterion = WEINCELoss(temperature=0.2)
        >>> z_a, z_b = torch.randn(16, 8), torch.randn(16, 8)
        >>> criterion(z_a, z_b).ndim, criterion.output(z_a, z_b).weight.shape
        (0, torch.Size([32]))
    """

    def output(self, z_a: Tensor, z_b: Tensor, **given: Unpack[Given]) -> LossOutput:
        """Of embeddings z_a and z_b, (N, D) each, and what else `weince.setups.two_views` takes."""
        return self.inner.of(lambda: [two_views(z_a, z_b, **given)], z_a=z_a, z_b=z_b)

    if TYPE_CHECKING:

        @_takes_what(output)
        def __call__(self) -> Any: ...


class InfoNCELoss(WEINCELoss):
    """InfoNCE of two views (NT-Xent): WEINCE with weight 0, by the same code.

        loss = mean over anchors of  -log softmax_{j in C(i)} (s_i. / tau) [i+]

    Args: as in `SetupLoss`, without a gate.

    Source: arXiv:1807.03748 (InfoNCE), arXiv:2002.05709 (two views).

    Examples:
        >>> InfoNCELoss(temperature=1.0)(torch.eye(4), torch.eye(4))
        tensor(1.1654)
    """

    def __init__(
        self, temperature: Temperature = 0.1, reduction: Reduction = "mean", **options: Unpack[Keywords]
    ) -> None:
        super().__init__(temperature, INFONCE, reduction, **options)


class TwoTowerLoss(SetupLoss):
    """CLIP: `criterion(image, text)` -> mean of both directions, each with its own tail statistics.

        loss = (L(a -> b) + L(b -> a)) / 2

    `.inner` runs twice a step, a -> b first; `output` holds the anchors of a, then those of b. The temperature learns
    as `TwoTowerLoss(LearnableTemperature())`, or in your model, given with each call as `logit_scale`.

    Args: as in `SetupLoss`. (CLIP starts at 0.07.)

    Source: arXiv:2103.00020 (CLIP), figure 3.

    Examples:
        >>> TwoTowerLoss(temperature=1.0, gate=INFONCE)(torch.eye(4), torch.eye(4))
        tensor(0.7437)
    """

    def output(
        self, a: Tensor, b: Tensor, *, logit_scale: Tensor | None = None, **given: Unpack[PairGiven]
    ) -> LossOutput:
        """Of embeddings a and b, (N, D) each, row i a pair, and what else `weince.setups.two_towers` takes.

        Args:
            a: one tower.
            b: the other.
            logit_scale: 1 / tau in the place of the module's own, with gradient: CLIP's `model.logit_scale.exp()`.
            **given: `sample_weight`, `ignored`, `ids`, or `query_ids` and `key_ids`.
        """

        def make() -> list[Contest]:
            there = two_towers(a, b, **given)
            return [there, swapped(there)]

        return self.inner.of(make, lambda: _temperature_of(logit_scale), a=a, b=b)

    if TYPE_CHECKING:

        @_takes_what(output)
        def __call__(self) -> Any: ...


def _temperature_of(logit_scale: Tensor | None) -> Tensor | None:
    """1 / logit_scale."""
    if logit_scale is None:
        return None
    expected = "Parameter `logit_scale` should be 1 / tau, one number in a tensor, as CLIP's model.logit_scale.exp()."
    if not isinstance(logit_scale, Tensor) or logit_scale.numel() != 1:
        found = f"shape {tuple(logit_scale.shape)}" if isinstance(logit_scale, Tensor) else f"{logit_scale!r}"
        raise TypeError(f"{expected} Found {found}.")
    if isinstance(logit_scale, nn.Parameter):
        raise ValueError(f"{expected} Found a parameter itself, which in CLIP is the logarithm of it.")
    return 1 / logit_scale


class QueueLoss(SetupLoss):
    """MoCo: `criterion(query, key)` -> scalar, against a queue of earlier keys, which grows by these when training.

    Keys come from the momentum encoder and get no gradient. The queue is a buffer: it is saved with the model and moves
    with it. It starts empty, so the first loss, without any negative, is 0. With `gather_distributed` every process
    appends the keys of all, and the queues stay the same.

    Under `torch.utils.checkpoint` the loss is computed again against the queue as it was.

    Args:
        size: Q, rows of the queue.
        width: D, of the embeddings.
        temperature: as in `SetupLoss`.
        gate: as in `SetupLoss`.
        reduction: as in `SetupLoss`.
        **options: as in `SetupLoss`.

    Source: arXiv:1911.05722 (MoCo), algorithm 1.

    Examples:
        >>> criterion = QueueLoss(size=64, width=8)
        >>> criterion(torch.randn(4, 8), torch.randn(4, 8)).ndim, int(criterion.queue.seen)
        (0, 4)
    """

    def __init__(
        self,
        size: int,
        width: int,
        temperature: Temperature = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__(temperature, gate, reduction, **options)
        self.queue = EmbeddingQueue(size, width)
        self._since_compared = 0

    def output(
        self,
        query: Tensor,
        key: Tensor,
        *,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
        ids: Tensor | None = None,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> LossOutput:
        """Of embeddings query and key, (N, D) each.

        Args:
            query: of the encoder.
            key: of the momentum encoder; row i of both is one example.
            sample_weight: of each query, (N,).
            ignored: bool (N, Q), rows of the queue that take no part.
            ids: integers (N,); a key in the queue with the query's id is not its negative.
            query_ids: of the queries, where they are not those of their keys.
            key_ids: of the keys.
        """
        processes = self.inner.options.processes
        again = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1  # within a backward
        twice = ids is not None and (query_ids is not None or key_ids is not None)
        if ids is not None:
            query_ids = key_ids = ids
        if isinstance(key, Tensor):
            key = key.detach()

        def make() -> list[Contest]:
            if twice:
                raise ValueError("Parameter `ids` should be given without `query_ids` and `key_ids`. Found both.")
            for name, of_rows in (("query_ids", query_ids), ("key_ids", key_ids)):
                if of_rows is not None:
                    check_labels(name if ids is None else "ids", of_rows, query)
            held = self.queue.filled(processes.values(key) if again and self.training else None)
            return [
                queued(
                    query,
                    key,
                    held.rows,
                    normalised=True,
                    sample_weight=sample_weight,
                    ignored=held.masked(ignored, query),
                    query_ids=query_ids,
                    queue_ids=held.ids,
                )
            ]

        self._compare_queues()
        output = self.inner.of(make, query=query, key=key)
        if self.training and not again:
            # Every process keeps the keys of all, so that all queues stay the same.
            self.queue.append(processes.values(key), None if key_ids is None else processes.values(key_ids.long()))
        return output

    if TYPE_CHECKING:

        @_takes_what(output)
        def __call__(self) -> Any: ...

    def _compare_queues(self) -> None:
        """Now and then: queues that differ give every process another loss, and nothing else would tell."""
        processes = self.inner.options.processes
        if torch.compiler.is_compiling() or processes.size == 1:
            return
        if self._since_compared % 100 == 0:
            processes.agree(self.queue.fingerprint(), "the queue")
        self._since_compared += 1


class SupervisedLoss(SetupLoss):
    """Labels: `criterion(z, labels)` -> scalar, mean over an anchor's positives of their negative log-probability.

    An anchor whose label no candidate shares is left out; the output counts them as `skipped`.

    Args: as in `SetupLoss`.

    Source: arXiv:2004.11362 (SupCon), equation 2.

    Examples:
        >>> SupervisedLoss()(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 3])).ndim
        0
    """

    def output(
        self,
        z: Tensor,
        labels: Tensor,
        others: Tensor | None = None,
        other_labels: Tensor | None = None,
        **given: Unpack[LabelGiven],
    ) -> LossOutput:
        """Of embeddings z with labels, among themselves or against `others`, and what else `labelled` takes.

        Args:
            z: (A, D), or V views of each example, (N, V, D).
            labels: int (A,), or bool (A, M): who is whose positive.
            others: candidates, (M, D).
            other_labels: int (M,).
            **given: `sample_weight`, `ignored`, `ids`, `other_ids`.
        """
        return self.inner.of(lambda: [labelled(z, labels, others, other_labels, **given)], z=z, others=others)

    if TYPE_CHECKING:

        @_takes_what(output)
        def __call__(self) -> Any: ...


class RetrievalLoss(SetupLoss):
    """Retrieval, sentence embeddings: `criterion(query, positive, negatives)` -> scalar.

    Args:
        temperature: as in `SetupLoss`.
        gate: as in `SetupLoss`.
        reduction: as in `SetupLoss`.
        **options: as in `SetupLoss`.
        in_batch: whether the other rows' positives and negatives are negatives too.

    Source: arXiv:1705.00652 (in-batch negatives).

    Examples:
        >>> RetrievalLoss()(torch.randn(6, 4), torch.randn(6, 4), torch.randn(6, 2, 4)).ndim
        0
    """

    def __init__(
        self,
        temperature: Temperature = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        in_batch: bool = True,
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__(temperature, gate, reduction, **options)
        check_flag("in_batch", in_batch)
        self.in_batch = in_batch

    def output(
        self, query: Tensor, positive: Tensor, negatives: Tensor | None = None, **given: Unpack[RetrievalGiven]
    ) -> LossOutput:
        """Of query and positive, (N, D) each, and what else `weince.setups.explicit_negatives` takes.

        Args:
            query: (N, D).
            positive: (N, D); row i of both is a pair.
            negatives: (N, H, D) of each query, or (H, D) of all.
            **given: `sample_weight`, `ignored`, `ids`, or `query_ids` and `key_ids`, and `negative_ids`.
        """

        def make() -> list[Contest]:
            return [explicit_negatives(query, positive, negatives, self.in_batch, **given)]

        return self.inner.of(make, query=query, positive=positive, negatives=negatives)

    if TYPE_CHECKING:

        @_takes_what(output)
        def __call__(self) -> Any: ...

    def extra_repr(self) -> str:
        return f"in_batch={self.in_batch}"
