"""One encoded image: decoded to bytes of RGB, upright, or refused by name."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from weince.lab.data.images import Images
from weince.shell.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decoded", "stacked"]

SIGNATURES = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"II*": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
"""First bytes of a format -> its name, for messages alone."""
EXIF = b"Exif\0\0"
"""Begins the EXIF block of a JPEG."""
ORIENTATION = 0x0112
"""The EXIF tag."""


def decoded(source: Path | bytes | None, name: str, size: int | None = None) -> np.ndarray:
    """RGB pixels (H, W, 3) of an encoded image, upright, transparency laid on white.

    Of its EXIF block only the orientation is looked at; where that cannot be read, the pixels are taken as they are.

    Args:
        source: a file, or its content.
        name: of the image, for messages.
        size: edge length in pixels to which the shorter edge is resized; the middle is kept.

    Raises:
        UserError: no image, a damaged one, or one of more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        content = _content(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd EXIF blocks and palettes: an image is read or refused
            image = _upright(content)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise ValueError(f"its pixels have mode {image.mode}; 8 bits a channel are expected")
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB")
    except Exception as error:  # damaged images raise almost anything
        raise UserError(f"{name} is not a readable image: {_told(error)}.") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def stacked(images: list[np.ndarray], labels: list[int], where: Path) -> Images:
    """Images of one size as one tensor.

    Raises:
        UserError: they have several sizes.
    """
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise UserError(f"Images in {where} should have one size. Found {sorted(shapes)[:4]}.")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(labels, dtype=torch.int64))


def _content(source: Path | bytes | None) -> bytes:
    if isinstance(source, Path):
        if source.exists() and not source.is_file():
            raise ValueError("it is no regular file")  # a pipe would be waited for
        source = source.read_bytes()
    if not isinstance(source, bytes):
        raise ValueError("it holds no bytes")
    return source


def _upright(content: bytes) -> Image.Image:
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        image = Image.open(io.BytesIO(content))
    except Exception as error:
        if not content.startswith(b"\xff\xd8") or EXIF not in content:
            raise _unknown(content) if isinstance(error, Image.UnidentifiedImageError) else error from None
        # Pillow reads the resolution of a JPEG from EXIF when it opens it, and some damaged blocks stop it there.
        try:
            image = Image.open(io.BytesIO(content.replace(EXIF, b"Skip\0\0")))
        except Image.UnidentifiedImageError:
            raise _unknown(content) from None
        image.info["exif"] = content[content.index(EXIF) :]
    image.load()
    try:
        turn = turns.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever the block holds: the pixels are there
        turn = None
    # Not ImageOps.exif_transpose, which writes the whole block anew and fails where a value cannot be written.
    return image if turn is None else image.transpose(turn)


def _unknown(content: bytes) -> ValueError:
    if not content:
        return ValueError("it is empty")
    for signature, kind in SIGNATURES.items():
        if content.startswith(signature):
            return ValueError(f"it begins as a {kind}, whose header is damaged or cut short ({len(content):,} bytes)")
    return ValueError(f"it begins with {content[:12]!r}, as no known image format does")


def _told(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.rstrip(".")
