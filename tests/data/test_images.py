from __future__ import annotations

import io
import resource
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from imagenette.data.images import HEAD, MAX_PIXELS, decode, is_image_head, is_image_name, read_header
from imagenette.errors import InputError
from tests.data.small_sets import encode, picture, turned


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
        for read in (read_header, decode):
            with pytest.raises(InputError, match=message) as caught:
                read(data, "set.tar: train/a/x.JPEG")
            assert str(caught.value).startswith("set.tar: train/a/x.JPEG: ")
            assert "\n" not in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_cap_is_below_what_a_small_file_can_claim() -> None:
    assert read_header(huge_jpeg(10_000), "x") == (10_000, 10_000, False)
    assert MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"])
def test_image_cut_short_is_refused(kind: str) -> None:
    data = encode(picture(1, (200, 150)), kind)
    with pytest.raises(InputError, match=r"^x\.JPEG: the image (header )?is damaged"):
        decode(data[: len(data) // 2], "x.JPEG")


def test_size_is_height_then_width() -> None:
    assert read_header(encode(picture(0, (24, 16))), "x") == (16, 24, False)
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


@pytest.mark.parametrize("place", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_an_image_is_upright_wherever_exif_says_that_its_top_is(kind: str, place: int) -> None:
    image = picture(5, (24, 16))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = turned(image, kind, place, **lossless)
    assert np.array_equal(decode(data, "x"), np.asarray(image))
    assert np.array_equal(decode(data, "x", 8), decode(encode(image, "PNG"), "x", 8))
    assert read_header(data, "x")[:2] == (16, 24)


def test_a_jpeg_is_turned_as_pillow_turns_it() -> None:
    data = turned(picture(5, (24, 16)), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data, "x"), np.asarray(ImageOps.exif_transpose(image)))
    assert read_header(data, "x") == (16, 24, True)


ONE_TAG = b"\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"  # orientation 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\x08\0\0\0" + ONE_TAG[:-6],
        b"II*\0\x08\0\0\0" + ONE_TAG.replace(b"\x06", b"\x09"),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(range(256)) * 40,
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_is_damaged_turns_nothing_and_is_not_told(kind: str, exif: bytes) -> None:
    image = picture(5, (24, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = encode(image, kind, exif=b"Exif\0\0" + exif)
        assert np.array_equal(decode(data, "x"), decode(encode(image, kind), "x"))
        assert read_header(data, "x") == (16, 24, False)
    whole = encode(image, kind, exif=b"Exif\0\0II*\0\x08\0\0\0" + ONE_TAG)
    assert read_header(whole, "x") == (24, 16, True)


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


LARGE = zlib.compress(bytes(3_000_000))
BESIDE = {
    "a large profile": chunk(b"iCCP", b"Adobe RGB\0\0" + LARGE),
    "a profile cut short": chunk(b"iCCP", b"Adobe RGB"),
    "a large compressed text": chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "a large international text": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "much text": 3 * chunk(b"tEXt", b"Comment\0" + b"x" * 24_000_000),
    "a text with a flaw": chunk(b"tEXt", b"Comment\0good", checksum=1),
    "a text that is called exif": chunk(b"tEXt", b"exif\0II*\0\x08\0\0\0" + ONE_TAG),
    "a cut density": chunk(b"pHYs", b"\0"),
    "an animation's frame count": chunk(b"acTL", b"\0"),
    "a chunk of one's own": chunk(b"prVt", b"1", checksum=2),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_png_is_its_pixels_whatever_else_it_carries(what: str) -> None:
    image = picture(6, (24, 16))
    data = encode(image, "PNG")
    data = data[:33] + BESIDE[what] + data[33:]  # after the header
    assert read_header(data, "x") == (16, 24, False)
    assert np.array_equal(decode(data, "x"), np.asarray(image))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_and_the_colour_under_it_stays(kind: str, mode: str) -> None:
    image = picture(7, (16, 16), "L" if mode == "LA" else "RGB")
    clear = image.copy()
    clear.putalpha(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    exact = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.array_equal(decode(encode(clear, kind, **exact), "x"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    gray = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    data = encode(Image.fromarray(gray), kind)
    assert np.array_equal(decode(data, "x")[..., 0], gray >> 8)


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
