"""The loss of a contest as a module, and what the losses of all setups share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

from torch import Tensor, nn

from weince.contest import Contest
from weince.gate import Gate
from weince.loss import contest_output, validated
from weince.options import Keywords, Options, Reduction
from weince.output import LossOutput, mean_of
from weince.temperature import LearnableTemperature, Temperature, check_temperature

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ContestLoss", "SetupLoss", "takes_what"]

P = ParamSpec("P")


def takes_what(output: Callable[P, LossOutput]) -> Callable[[Any], Callable[P, Tensor]]:
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
        **options: `eps`, `label_smoothing`, `decoupled`, `check_finite`, `implementation`, `matmul_precision`,
            `gather_distributed`, `group`, as in `Options`.

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

        @takes_what(cls.output)
        def forward(self: SetupLoss, *inputs: Any, **given: Any) -> Tensor:
            return self.output(*inputs, **given).loss

        cls.forward = forward
