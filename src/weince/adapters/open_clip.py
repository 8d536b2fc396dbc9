"""open_clip: `from weince.adapters.open_clip import WEINCELoss` in place of `from open_clip import ClipLoss`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from weince.adapters import needs
from weince.contest import Contest
from weince.gate import Gate
from weince.options import OwnKeywords
from weince.setups import ContestLoss, both_ways, two_towers

with needs("open_clip_torch", tested="3.3"):
    from open_clip.loss import ClipLoss, gather_features

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["WEINCELoss"]


class WEINCELoss(ClipLoss):
    """WEINCE with the signature of open_clip's `ClipLoss`: image to text and text to image, mean of both.

    Each direction has its own tail; the output of `inner` holds image to text, then text to image. `logit_scale` gets
    its gradient; `logit_bias` moves all logits of an anchor alike, so no loss of this kind depends on it.

    Statistics go through a hook on `inner`, never into the returned dict: open_clip sums what it finds there.

    Args:
        local_loss: each process has the rows of its own anchors, weighed by the whole batch; with several processes it
            needs `gather_with_grad`. The value is that of the whole batch, open_clip's of the own anchors; gradients
            agree.
        gather_with_grad: as in `ClipLoss`.
        cache_labels: as in `ClipLoss`.
        rank: as in `ClipLoss`.
        world_size: as in `ClipLoss`.
        use_horovod: as in `ClipLoss`.
        gate: how weight and slope are measured; `weince.INFONCE` is open_clip's own loss.
        **options: further ones of `weince.Options`, as `label_smoothing`.

    Examples:
        >>> import torch
        >>> WEINCELoss()(torch.eye(4), torch.eye(4), torch.tensor(10.0), output_dict=True).keys()
        dict_keys(['contrastive_loss'])
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        gate: Gate = Gate(),
        **options: Unpack[OwnKeywords],
    ) -> None:
        super().__init__(local_loss, gather_with_grad, cache_labels, rank, world_size, use_horovod)
        several = world_size > 1
        if several and local_loss and not gather_with_grad:
            raise NotImplementedError(
                "Parameter `gather_with_grad` should be True with `local_loss`: without it, candidates of other "
                f"processes would have no gradient at all. Found False with `world_size` {world_size}."
            )
        self.inner = ContestLoss(gate=gate, gather_distributed=several and local_loss, **options)

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
        *,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Loss of image and text features, (N, D) each, at temperature 1 / logit_scale.

        Args:
            image_features: (N, D).
            text_features: (N, D); row i of both is a pair.
            logit_scale: 1 / tau, as the model returns it.
            logit_bias: moves nothing.
            output_dict: whether the loss comes in a dict.
            sample_weight: of each pair, (N,).
            ignored: bool (N, N), rows of images, columns of texts: pairs that take no part.
            ids: integers (N,); pairs with equal ids, one text twice, say, are never each other's negatives.

        Masks, weights and ids are of the own pairs; where the features of all processes are gathered first (several
        processes without `local_loss`), give those of all.
        """

        def make() -> list[Contest]:
            images, texts = image_features, text_features
            if self.world_size > 1 and not self.local_loss:
                images, texts = gather_features(
                    images,
                    texts,
                    local_loss=False,
                    gather_with_grad=self.gather_with_grad,
                    rank=self.rank,
                    world_size=self.world_size,
                    use_horovod=self.use_horovod,
                )
            return both_ways(two_towers(images, texts, sample_weight=sample_weight, ignored=ignored, ids=ids))

        named = {"image_features": image_features, "text_features": text_features}
        loss = self.inner.of(make, lambda: 1 / logit_scale, **named).loss
        if logit_bias is not None:
            loss = loss + 0 * logit_bias.sum()  # keeps it in the graph, where DistributedDataParallel looks for it
        return {"contrastive_loss": loss} if output_dict else loss
