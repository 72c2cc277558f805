"""What Pillow leaves out without a word: checksums, further pictures, the lower bits of 16."""

import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFile

PNG = b"\x89PNG\r\n\x1a\n"


def wrong_checksum(content: bytes) -> str | None:
    """The first chunk of a PNG whose checksum is wrong; Pillow decodes pixels without a look at it.

    Raises:
        struct.error: for a PNG that ends early.
    """
    if not content.startswith(PNG):
        return None
    place, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if zlib.crc32(content[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return f"truncated or damaged: the checksum of its {kind!r} is wrong"
        place = end + 4
    return None


def portable_map_refusal(image: "ImageFile.ImageFile", content: bytes) -> str | None:
    """What Pillow does not see in a PBM, PGM or PPM: further pictures, values above the highest."""
    if content[:2] not in (b"P4", b"P5", b"P6"):
        return None  # numbers in words, which Pillow checks
    tile: Any = image.tile[0]
    (decoder, _, start, args), (width, height) = tile, image.size
    deep = image.mode == "I" or (decoder == "ppm" and args[-1] > 255)
    row = -(-width // 8) if image.mode == "1" else width * len(image.getbands()) * (1 + deep)
    end = start + row * height
    if content[end:].strip():
        return "more follows after its picture; save each picture as a file"
    if decoder == "ppm":
        values = np.frombuffer(
            content, ">u2" if deep else np.uint8, (end - start) // (1 + deep), start
        )
        if values.max() > args[-1]:
            return (
                f"it has the value {values.max()} and names {args[-1]} as the highest; correct that"
            )
    return None


def is_cut(image: "ImageFile.ImageFile", content: bytes) -> bool:
    """Whether Pillow gives 8 bits of more, and leaves the others out without rounding."""
    if image.format == "SGI":
        return content[3] == 2  # bytes a channel
    if image.format == "JPEG2000":
        return image.mode != "I;16" and max(_jpeg2000_bits(content)) > 8
    return not image.mode.startswith("I") and any(
        re.search(r"\b(RGB[AXa]?|LA|CMYK);16", str(tile[3])) for tile in image.tile
    )


def _jpeg2000_bits(content: bytes) -> list[int]:
    """Of each channel, by the SIZ segment of a codestream (ISO/IEC 15444-1, A.5.1)."""
    sizes = content[content.index(b"\xff\x4f\xff\x51") + 4 :]
    channels = int.from_bytes(sizes[36:38], "big")
    return [(depth & 0x7F) + 1 for depth in sizes[38 : 38 + 3 * channels : 3]]
