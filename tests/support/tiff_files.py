"""TIFF files of any bits, planes and meaning, written byte by byte: Pillow writes few of them."""

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ASCII, SHORT, LONG = 2, 3, 4
RAW, DEFLATE = 1, 8


@dataclass(frozen=True)
class Tiff:
    """One page, whose tags are those of the TIFF 6.0 specification.

    Attributes:
        bits: of each sample.
        photometric: PhotometricInterpretation.
        sample_format: 1 unsigned, 2 signed, 3 float.
        planes: PlanarConfiguration: 1 pixel after pixel, 2 channel after channel.
        extra: ExtraSamples.
        order: ``<`` or ``>``, of the bytes.
        compression: none, or deflate.
        more: other tags: numbers, or a text.
    """

    bits: int = 8
    photometric: int = 1
    sample_format: int = 1
    planes: int = 1
    extra: tuple[int, ...] = ()
    order: str = "<"
    compression: int = RAW
    more: dict[int, tuple[int, ...] | bytes] = field(default_factory=dict)

    def write(self, path: Path, values: NDArray[np.generic]) -> Path:
        """Writes :meth:`content`, with its folders."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content(values))
        return path

    def content(self, values: NDArray[np.generic]) -> bytes:
        """A file of values (h, w, c), of which all bits are taken."""
        height, width, channels = values.shape
        layers = [values] if self.planes == 1 else list(np.moveaxis(values, -1, 0)[..., None])
        strips = [self._strip(layer) for layer in layers]
        tags: dict[int, tuple[int, ...] | bytes] = {
            256: (width,), 257: (height,), 258: (self.bits,) * channels, 259: (self.compression,),
            262: (self.photometric,), 273: tuple(8 + sum(map(len, strips[:i])) for i in range(
            len(strips))), 277: (channels,), 278: (height,), 279: tuple(map(len, strips)),
            284: (self.planes,), 339: (self.sample_format,) * channels,
        }  # fmt: skip
        tags |= {338: self.extra} if self.extra else {}
        content = b"".join(strips)
        content += b"\0" * (len(content) % 2)
        return self._whole(content, dict(sorted((tags | self.more).items())))

    def _strip(self, layer: NDArray[np.generic]) -> bytes:
        rows = layer.reshape(len(layer), -1)
        if self.bits % 8 == 0:
            content = rows.astype(rows.dtype.newbyteorder(self.order)).tobytes()
        else:  # bit after bit, each row from a byte on
            digits = [[format(int(v), f"0{self.bits}b") for v in row] for row in rows]
            joined = ["".join(row) for row in digits]
            content = b"".join(
                int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big")
                for row in joined
            )
        return zlib.compress(content) if self.compression == DEFLATE else content

    def _whole(self, content: bytes, tags: dict[int, tuple[int, ...] | bytes]) -> bytes:
        magic = b"II*\0" if self.order == "<" else b"MM\0*"
        start = 8 + len(content)
        beside, entries = b"", b""
        behind = start + 2 + 12 * len(tags) + 4
        for tag, numbers in tags.items():
            if isinstance(numbers, bytes):
                kind, packed = ASCII, numbers
            else:
                kind = LONG if tag in (273, 279) else SHORT
                letter = {SHORT: "H", LONG: "I"}[kind]
                packed = struct.pack(f"{self.order}{len(numbers)}{letter}", *numbers)
            entries += struct.pack(f"{self.order}HHI", tag, kind, len(numbers))
            if len(packed) <= 4:
                entries += packed.ljust(4, b"\0")
            else:
                entries += struct.pack(f"{self.order}I", behind + len(beside))
                beside += packed
        return (
            magic + struct.pack(f"{self.order}I", start) + content
            + struct.pack(f"{self.order}H", len(tags)) + entries + bytes(4) + beside
        )  # fmt: skip
