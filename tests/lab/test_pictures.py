"""One image: pixels come out upright whatever lies beside them, or the image is refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from weince.lab.data.pictures import decoded
from weince.shell.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
BLOCK = {"JPEG": b"Exif\0\0", "PNG": b"eXIf", "WEBP": b"EXIF"}


def encoded(array, fmt="PNG", mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, fmt, **options)
    return buffer.getvalue()


def lossless(fmt):
    return {"lossless": True} if fmt == "WEBP" else {"quality": 95} if fmt == "JPEG" else {}


def entry(tag, kind, count, value):
    """An entry of an EXIF block: what does not fit into four bytes lies elsewhere, at `value`."""
    return struct.pack("<HHI4s", tag, kind, count, value)


def block(*entries, beyond=b""):
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0" + beyond


UPRIGHT = {2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1], 5: lambda p: p.swapaxes(0, 1),
           6: lambda p: p[::-1].swapaxes(0, 1), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
           8: lambda p: p[:, ::-1].swapaxes(0, 1)}  # fmt: skip


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_come_out_upright(fmt, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(PIXELS, fmt, exif=exif, **lossless(fmt))
    plain = decoded(encoded(PIXELS, fmt, **lossless(fmt)), "plain")
    assert np.array_equal(decoded(content, "x"), UPRIGHT.get(orientation, lambda p: p)(plain))


SHORT, LONG, RATIONAL, SIGNED = 3, 4, 5, 10


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "odd",
    [
        entry(0x011A, SIGNED, 1, struct.pack("<I", 38)),  # XResolution -1/0
        entry(0x011A, RATIONAL, 1, b"\xff" * 4),  # beyond the block
        entry(0x011A, SHORT, 2, b"\0" * 4),
        entry(0x011A, 2, 4, b"abc\0"),
        entry(0x011A, 99, 1, b"\0" * 4),  # no such type
        entry(0x010F, 99, 1, b"\0" * 4),
        entry(0x010F, SHORT, 2, b"\0" * 4),  # a maker that is no text
        entry(0x0128, 2, 0xFFFFFFFF, b"\0" * 4),
        entry(0x8769, LONG, 1, b"\xff\xff\0\0"),  # a block that is not there
        entry(0x8825, 2, 3, b"ab\0\0"),
        entry(0x927C, 7, 0, b"\0" * 4),
    ],
)
def test_the_orientation_is_found_beside_odd_values(fmt, odd):
    turned = entry(0x0112, SHORT, 1, struct.pack("<I", 6))
    pair = sorted((odd, turned), key=lambda one: struct.unpack("<H", one[:2]))  # as EXIF asks
    content = encoded(PIXELS, fmt, exif=b"Exif\0\0" + block(*pair, beyond=struct.pack("<ii", -1, 0)), **lossless(fmt))
    plain = decoded(encoded(PIXELS, fmt, **lossless(fmt)), "plain")
    assert np.array_equal(decoded(content, "x"), UPRIGHT[6](plain))


@pytest.mark.parametrize("turn", [6, "no turn"])
def test_a_jpeg_whose_exif_block_stops_pillow_is_read(turn, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(PIXELS, "JPEG", exif=exif) if turn == 6 else encoded(PIXELS, "JPEG", exif=b"Exif\0\0rubbish")
    plain = decoded(encoded(PIXELS, "JPEG"), "plain")

    def stopped(self):
        if "exif" in self.info:
            raise AttributeError("'str' object has no attribute 'numerator'")

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile._read_dpi_from_exif", stopped)
    assert np.array_equal(decoded(content, "x"), UPRIGHT[6](plain) if turn == 6 else plain)


def full():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A], exif[0x0128] = 6, "maker", 72.0, 2
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    return exif


def mutated(content, start, stop, generator):
    changed = bytearray(content)
    for at in generator.integers(start, stop, generator.integers(1, 6)):
        changed[at] = generator.choice([0, 1, 2, 3, 4, 5, 7, 10, 12, 128, 255, generator.integers(256)])
    return changed


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_read_whatever_the_exif_block_holds(fmt):
    generator = np.random.default_rng(len(fmt))
    content = encoded(PIXELS, fmt, exif=full(), **lossless(fmt))
    plain = decoded(encoded(PIXELS, fmt, **lossless(fmt)), "plain")
    every = [plain, *(turn(plain) for turn in UPRIGHT.values())]
    length = len(full().tobytes()) - 6
    start = content.index(BLOCK[fmt]) + len(BLOCK[fmt]) + (4 if fmt == "WEBP" else 0)
    turned = 0
    for _ in range(200):
        changed = mutated(content, start, start + length, generator)
        if fmt == "PNG":  # a chunk of a wrong checksum is damage, not an odd value
            changed[start + length : start + length + 4] = struct.pack(
                ">I", zlib.crc32(changed[start - 4 : start + length])
            )
        found = decoded(bytes(changed), "x")
        assert any(np.array_equal(found, one) for one in every)
        turned += np.array_equal(found, every[5])
    assert turned > 100


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_damaged_images_are_pixels_or_one_error_that_names_them(fmt):
    generator = np.random.default_rng(len(fmt))
    content = encoded(PIXELS, fmt, **({"exif": full()} if fmt in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    refused = 0
    for _ in range(150):
        changed = bytes(mutated(content, 0, min(len(content), 400), generator))
        if generator.random() < 0.2:
            changed = changed[: generator.integers(len(changed))]
        try:
            assert decoded(changed, "the/file.img").dtype == np.uint8
        except UserError as error:
            refused += 1
            told = str(error)
            assert told.startswith("the/file.img is not a readable image: ")
            assert len(told) > 45
            assert "0x" not in told
            assert "object at" not in told
            assert "BytesIO" not in told
    assert refused > 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (None, "holds no bytes"),
        (b"hello, this is text", r"begins with b'hello, this '"),
        (b"<!DOCTYPE html><html>", r"begins with b'<!DOCTYPE ht'"),
        (encoded(PIXELS, "JPEG")[:30], "Truncated File Read"),
        (b"\xff\xd8", r"begins as a JPEG, whose header is damaged or cut short \(2 bytes\)"),
        (b"\xff\xd8\xff" + b"x" * 50, "begins as a JPEG, whose header"),
        (encoded(PIXELS, "PNG")[:12], "begins as a PNG, whose header"),
        (encoded(PIXELS, "TIFF")[:50], "begins as a TIFF, whose header"),
        (encoded(PIXELS, "JPEG")[:-200], "truncated"),
        (encoded(PIXELS, "PNG")[:-200], "truncated"),
        (encoded(np.full((8, 8), 40000, dtype=np.uint16)), "8 bits a channel"),
        (encoded(np.full((8, 8), 0.5, dtype=np.float32), "TIFF"), "mode F; 8 bits a channel"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_the_reason(content, says, tmp_path):
    with pytest.raises(UserError, match=f"x.jpg, row 3 is not a readable image: .*{says}"):
        decoded(content, "x.jpg, row 3")
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(UserError, match=rf"x\.jpg is not a readable image: .*{says}"):
            decoded(tmp_path / "x.jpg", str(tmp_path / "x.jpg"))


def test_transparency_lies_on_white():
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    assert (decoded(encoded(clear), "x") == 255).all()
    half = decoded(encoded(clear + np.array([0, 0, 0, 128], dtype=np.uint8)), "x")
    assert (abs(half.astype(int) - 127) < 2).all()
