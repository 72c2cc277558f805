"""What the tags of a TIFF file say of its values, where Pillow alone would change them.

Numbers of tags and of their values are those of the TIFF 6.0 specification (1992) and, for
ImageDepth, of libtiff.
"""

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

BITS, PHOTOMETRIC, DESCRIPTION, PLANES, COLOUR_MAP = 258, 262, 270, 284, 320
EXTRA_SAMPLES, SAMPLE_FORMAT, IMAGE_DEPTH = 338, 339, 32997
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
UNSIGNED, FLOAT = 1, 3
SEPARATE = 2
PREFIXES = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")
LOSSY = ("jpeg", "tiff_jpeg", "webp")
# In this order, integers of numpy do not overflow.
EIGHT_BITS = "save it with 8 bits, round((x - black) / (white - black) * 255)"


def refusal(image: "Image.Image") -> str | None:
    """Why Pillow's pixels of an open TIFF would not be those that the file means; None if they are.

    What has no meaning in 8 bits whoever reads it is left to others, except by its sample format.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, photometric = _bits(tags), tags.get(PHOTOMETRIC, WHITE_IS_ZERO)
    if formats := set(tags.get(SAMPLE_FORMAT, (UNSIGNED,))) - {UNSIGNED}:
        kind = "float" if formats == {FLOAT} else "signed"
        return f"{kind} values say nothing of black and white; {EIGHT_BITS}"
    if bits > 16:
        return f"values of {bits} bits do not fill them as a rule; {EIGHT_BITS}"
    if 0 in tags.get(EXTRA_SAMPLES, ()):
        return (
            "it has more channels than colours, and does not say what they are (ExtraSamples 0); "
            "save its colours alone"
        )
    plain = bits == 8 and photometric in (BLACK_IS_ZERO, RGB, PALETTE)
    if tags.get(PLANES, 1) == SEPARATE and (not plain or EXTRA_SAMPLES in tags):
        return "Pillow reads such planes wrongly; save it with one plane (PlanarConfiguration 1)"
    if photometric == PALETTE and max(tags.get(COLOUR_MAP, (0,))) in range(1, 256):
        return (
            "its palette has values of 8 bits where TIFF has 16, and would be black; save it as RGB"
        )
    return None


def pictures(image: "Image.Image") -> int:
    """How many an open TIFF holds: ImageJ and libtiff keep stacks behind one page."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    told = re.match(r"ImageJ=.*?^images=(\d+)", str(tags.get(DESCRIPTION, "")), re.S | re.M)
    return max(int(told[1]) if told else 1, int(tags.get(IMAGE_DEPTH, 1)))


def black_and_white(image: "Image.Image") -> tuple[int, int]:
    """The values of black and of white in the grey of more than 8 bits that Pillow reads.

    Pillow keeps 12 bits as they are, in pixels of 16, and does not turn round WhiteIsZero.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    top = 2 ** _bits(tags) - 1
    return (top, 0) if tags.get(PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO else (0, top)


def unknown_kind(content: bytes) -> str | None:
    """What a TIFF is that Pillow does not open; None if it is none."""
    if not content.startswith(PREFIXES):
        return None
    from PIL import TiffImagePlugin

    header = content[: 16 if 0x2B in content[2:4] else 8]  # of BigTIFF, or the usual one
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    return (
        f"a TIFF that Pillow does not read (BitsPerSample {tags.get(BITS, (1,))}, "
        f"PhotometricInterpretation {tags.get(PHOTOMETRIC)}, SampleFormat "
        f"{tags.get(SAMPLE_FORMAT, (UNSIGNED,))}); convert it to grey or RGB, and {EIGHT_BITS}"
    )


def _bits(tags: Any) -> int:
    return int(max(tags.get(BITS, (1,))))
