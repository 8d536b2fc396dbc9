"""The options that every loss takes, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from weince.checks import check_flag, check_number, check_option
from weince.gate import Gate
from weince.processes.gather import Processes

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Implementation", "Keywords", "MatmulPrecision", "Options", "OwnKeywords", "Reduction"]

Reduction = Literal["mean", "sum", "none"]
Implementation = Literal["auto", "dense", "tiled"]
MatmulPrecision = Literal["highest", "torch"]


class OwnKeywords(TypedDict, total=False):
    """The fields of `Options` that are given by name alone and concern one process, for type checkers."""

    eps: float
    label_smoothing: float
    decoupled: bool
    check_finite: bool
    implementation: Implementation
    matmul_precision: MatmulPrecision


class Keywords(OwnKeywords, total=False):
    """All that are given by name alone."""

    gather_distributed: bool
    group: ProcessGroup | str | None


@dataclass(frozen=True)
class Options:
    """What every loss takes beside embeddings and a temperature.

    Attributes:
        gate: how weight and slope are measured on the batch; `INFONCE` for plain InfoNCE.
        reduction: "mean", "sum" (of w_i loss_i) or "none" (loss_i, without weights) over the anchors.
        eps: floor of the shortfall, in (0, 1).
        label_smoothing: share of the target that is spread over all candidates, in [0, 1), as in
            `torch.nn.functional.cross_entropy`.
        decoupled: leave the positive out of the denominator (DCL, arXiv:2110.06848): log sum over the negatives of
            exp(logit) - the mean of the positives' logits. With `gate=INFONCE` that is DCL. Not with a temperature that
            learns: it would run to its bound.
        check_finite: refuse NaN and infinity, and name the rows. Synchronises a GPU and breaks a compiled graph.
        implementation: "dense" holds (A, M) matrices, can be differentiated twice, forwards and by `torch.func`, for
            which "auto" takes it; "tiled" forms loss and gradient row tile by row tile in O(A + M) memory, on CUDA by
            kernels; "auto" takes tiles on a CPU, where they are faster at every size measured, on CUDA (not measured
            yet), and on other GPUs beyond M = 16,384 (a guess).
        matmul_precision: of the similarities. "highest" computes them in full float32; "torch" as PyTorch is set for
            all products (`torch.set_float32_matmul_precision`, `torch.backends`): in TF32 or bfloat16 their rounding
            moves the gradient of WEINCE by percents, since 1 - s cancels. The gradient's products follow PyTorch's
            setting either way.
        gather_distributed: take the candidates and the statistics of all processes. The value is that of one process
            with the concatenated batch, and so is the gradient, once gradients are averaged over processes as
            DistributedDataParallel does (`weince.processes`).
        group: the processes that gather, of the default group where it is None; for those who train with tensor or
            pipeline parallelism.
    """

    gate: Gate = Gate()  # noqa: RUF009 - frozen
    reduction: Reduction = "mean"
    eps: float = 1e-6
    label_smoothing: float = 0.0
    decoupled: bool = False
    check_finite: bool = False
    implementation: Implementation = "auto"
    matmul_precision: MatmulPrecision = "highest"
    gather_distributed: bool = False
    group: Any = None
    processes: Processes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.gate, Gate):
            raise TypeError(f"Parameter `gate` should be a Gate. Found {type(self.gate).__name__}.")
        check_option("reduction", self.reduction, ("mean", "sum", "none"))
        check_option("implementation", self.implementation, ("auto", "dense", "tiled"))
        check_option("matmul_precision", self.matmul_precision, ("highest", "torch"))
        check_flag("decoupled", self.decoupled)
        check_flag("check_finite", self.check_finite)
        check_flag("gather_distributed", self.gather_distributed)
        eps = check_number("eps", self.eps, "in (0, 1)", lambda v: 0 < v < 1)
        smoothing = check_number("label_smoothing", self.label_smoothing, "in [0, 1)", lambda v: 0 <= v < 1)
        processes = Processes.of(self.gather_distributed, self.group)
        # By name: a group itself can be neither copied nor saved with a module.
        for name, value in (
            ("eps", eps),
            ("label_smoothing", smoothing),
            ("processes", processes),
            ("group", processes.group or None),
        ):
            object.__setattr__(self, name, value)

    def told(self) -> str:
        """Every option that is not the default, for a module's `repr`."""
        shown = [f"gate={self.gate}", f"reduction={self.reduction!r}"]
        for each in fields(self)[2:-1]:
            value = getattr(self, each.name)
            if value != each.default:
                shown.append(f"{each.name}={value!r}")
        return ", ".join(shown)
