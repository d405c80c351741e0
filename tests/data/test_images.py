from __future__ import annotations

import resource
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from imagenette.data.images import HEAD, MAX_PIXELS, decode, is_image_head, is_image_name, read_size
from imagenette.errors import InputError
from tests.data.small_sets import encode, picture


def huge_jpeg(side: int) -> bytes:
    """A whole little JPEG whose header is edited to claim side x side."""
    data = bytearray(encode(picture(0)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def huge_png(side: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = encode(picture(0), "PNG")
    return data[:12] + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def huge_webp(side: int) -> bytes:
    data = bytearray(encode(picture(0, mode="RGBA"), "WEBP", lossless=True, exif=b"Exif\0\0" + b"x" * 9))
    assert data[12:16] == b"VP8X"
    data[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am no picture\n", "not an image"),
    "html": (b"<html>404</html>", "not an image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "not an image"),
    "gif magic alone": (b"GIF89a", "damaged"),
    "huge gif": (
        b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + encode(picture(0), "GIF")[10:],
        "65000 x 65000",
    ),
    "riff that is sound": (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40, "not an image"),
    "jpeg magic alone": (b"\xff\xd8\xff", "damaged"),
    "png cut in its header": (encode(picture(0), "PNG")[:20], "damaged"),
    "huge jpeg": (huge_jpeg(65500), "65500 x 65500"),
    "huge png": (huge_png(100_000), "100000 x 100000"),
    "huge webp": (huge_webp(16_383), "16383 x 16383"),
    "just above the cap": (huge_jpeg(10_001), "10001 x 10001"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_header_is_refused_in_one_line_without_warning_or_memory(what: str) -> None:
    data, message = REFUSED[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_size, decode):
            with pytest.raises(InputError, match=message) as caught:
                read(data, "set.tar: train/a/x.JPEG")
            assert str(caught.value).startswith("set.tar: train/a/x.JPEG: ")
            assert "\n" not in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_cap_is_below_what_a_small_file_can_claim() -> None:
    assert read_size(huge_jpeg(10_000), "x") == (10_000, 10_000)
    assert MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"])
def test_image_cut_short_is_refused(kind: str) -> None:
    data = encode(picture(1, (200, 150)), kind)
    with pytest.raises(InputError, match=r"^x\.JPEG: the image (header )?is damaged"):
        decode(data[: len(data) // 2], "x.JPEG")


def test_size_is_height_then_width() -> None:
    assert read_size(encode(picture(0, (24, 16))), "x") == (16, 24)
    assert decode(encode(picture(0, (24, 16))), "x").shape == (16, 24, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_bit_for_bit(kind: str) -> None:
    image = picture(2, (8, 8))
    assert np.array_equal(decode(encode(image, kind), "misnamed.JPEG", 8), np.asarray(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_reads_as_the_rgb_it_shows(mode: str) -> None:
    image = picture(3, (32, 32))
    gray = image.convert("L")
    if mode == "I;16":
        data = encode(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), "PNG")
        expected = gray.convert("RGB")
    elif mode == "CMYK":
        data, expected = encode(image.convert("CMYK"), "JPEG", quality=100), image
    else:
        converted = gray.convert(mode) if mode in {"1", "LA"} else image.convert(mode)
        data, expected = encode(converted, "PNG"), converted.convert("RGB")
    shown = decode(data, "x").astype(int)
    assert shown.shape == (32, 32, 3)
    assert np.abs(shown - np.asarray(expected).astype(int)).max() <= (8 if mode == "CMYK" else 0)


@pytest.mark.parametrize(("kind", "off"), [("GIF", 3), ("AVIF", 6)])
def test_pictures_of_the_web_are_read(kind: str, off: int) -> None:
    """An animated one as its first picture."""
    images = [picture(seed, (32, 32)) for seed in (5, 6)]
    first = images[0].quantize().convert("RGB") if kind == "GIF" else images[0]
    for data in (encode(images[0], kind), encode(images[0], kind, save_all=True, append_images=images[1:])):
        assert np.abs(decode(data, "x").astype(int) - np.asarray(first).astype(int)).mean() < off


def test_a_file_of_another_name_is_an_image_by_its_first_bytes() -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF"):
        head = encode(picture(0), kind)[:HEAD]
        assert is_image_head("x", head)
        assert is_image_head("x.dat", head)
        assert not any(is_image_head(f"x.jpg{end}", head) for end in ("~", ".bak", ".PART"))
    for head in (b"", b"BMW is a maker of cars", b"II*\0 as a raw file begins", b"RIFF\x24\0\0\0WAVEfmt "):
        assert not is_image_head("x", head)


def test_cmyk_jpeg_is_adobe_inverted_and_read_right() -> None:
    data = encode(Image.new("RGB", (8, 8), (250, 10, 10)).convert("CMYK"), "JPEG")
    assert b"Adobe" in data
    red, green, blue = decode(data, "x")[4, 4]
    assert red > 240
    assert green < 25
    assert blue < 25


def test_palette_with_transparency_reads_without_a_warning() -> None:
    data = encode(picture(4).convert("P"), "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data, "x").shape == (16, 24, 3)


def test_32_bit_pixels_are_refused() -> None:
    data = encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(InputError, match="32-bit"):
        decode(data, "x")


def test_exif_orientation_is_ignored() -> None:
    image, exif = picture(5, (24, 16)), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    turned = encode(image, "JPEG", exif=exif)
    assert np.array_equal(decode(turned, "x"), decode(encode(image), "x"))


def test_image_of_the_wanted_side_is_not_resized() -> None:
    data = encode(picture(6, (32, 32)))
    assert np.array_equal(decode(data, "x", 32), decode(data, "x"))


def test_squashing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = decode(encode(Image.fromarray(stripes), "PNG"), "x", 16)
    assert small.shape == (16, 16, 3)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 128).max() <= 16


def test_names_of_images_in_any_case() -> None:
    ends = ("jpg", "JPEG", "jfif", "Png", "gif", "bmp", "webp", "tif", "TIFF")
    assert all(is_image_name(f"x.{end}") for end in ends)
    assert not any(is_image_name(name) for name in ("README", "noisy_imagenette.csv", "jpeg", "x.jpg.txt"))
