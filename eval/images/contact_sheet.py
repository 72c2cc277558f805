"""The first samples of a folder in one picture, with the names of their classes.

It is for the eye alone: no command counts it among the images of the folder.
"""

from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.eval.common.class_names import class_names
from fewstep.eval.common.durable import write_durably
from fewstep.eval.common.image_sets import COLOURS, GREY
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.verification import units_of
from fewstep.eval.images.names import CONTACT_SHEET

ACROSS, MOST = 8, 64  # tiles of a line, and in all
LEAST_SIDE, LONGEST_SIDE = 84, 160  # of a tile, in pixels: room for a name, and for all on a screen
GAP, HEAD, CAPTION, LETTERS = 8, 30, 17, 12  # in pixels
PAPER, INK = (255, 255, 255), (40, 43, 48)


class FirstSamples(NamedTuple):
    """Samples as they are kept: uint8 (n, c, h, w), and the names of their classes, if any."""

    images: Tensor
    names: tuple[str, ...]


def first_samples(folder: str | Path, count: int) -> FirstSamples:
    """The first ``count`` samples of a folder of images, or all if there are fewer.

    Labels are those that the units were made with and hold, not a guess by their order.

    Raises:
        FileNotFoundError: if nothing was generated there.
        ValueError: if one of their units is missing, or no images were kept.
    """
    shards = ShardFolder(folder)
    config = shards.config()
    if config["keep"] != "images":
        raise ValueError(f"{folder} keeps {config['keep']} and no images")
    units = range(min(units_of(config), -(-count // int(config["unit_size"]))))
    pieces = sorted(shards.finished(units).pieces, key=lambda piece: piece.units[0].unit)
    parts = [shards.load(piece) for piece in pieces]
    if len(parts) < len(units):
        raise ValueError(f"{folder} lacks its first samples; generate the rest first")
    images = torch.cat([part["images"] for part in parts])[:count]
    labels = [label for part in parts if "labels" in part for label in part["labels"].tolist()]
    model, prompts = _classes(shards, config)
    return FirstSamples(images, tuple(class_names(model, labels[:count], prompts)))


def _classes(shards: ShardFolder, config: dict[str, Any]) -> tuple[str, list[str]]:
    """The model as it was named, and its prompts."""
    from fewstep.eval.problems.prompts import prompt_lines

    options = shards.options_or_none() or {}
    model = str(options.get("model", config["problem"]))
    return model, prompt_lines(options.get("prompts") or "")


def write_contact_sheet(folder: Path) -> Path | None:
    """Draws the first samples of a complete folder into it, whole or not at all.

    Returns:
        The PNG; None where no images were kept, or samples are none.
    """
    config = ShardFolder(folder).config()
    shape = config["image_shape"]
    if config["keep"] != "images" or len(shape) != 3 or shape[0] not in (GREY, COLOURS):
        return None
    found = first_samples(folder, MOST)
    guidance = "" if config["guidance"] == "none" else f", guidance {config['guidance']}"
    title = f"{config['sampler']}, {config['nfe']} network calls{guidance}, seeds {config['seeds']}"
    path = folder / CONTACT_SHEET
    write_durably(path, drawn(found, title))
    return path


def drawn(found: FirstSamples, title: str) -> bytes:
    """A PNG of the samples in lines of eight, each over its name."""
    from PIL import Image, ImageDraw

    tiles = [_tile(image) for image in found.images.movedim(1, -1)]
    width, height = tiles[0].size
    across = min(ACROSS, len(tiles))
    below = CAPTION if found.names else 0
    lines = -(-len(tiles) // across)
    size = (
        max(across * (width + GAP) + GAP, 480),
        HEAD + lines * (height + below + GAP) + GAP,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), _font()
    pen.text((GAP, GAP), _fitted(title, size[0] - 2 * GAP, font), fill=INK, font=font)
    for i, tile in enumerate(tiles):
        left = GAP + i % across * (width + GAP)
        top = HEAD + i // across * (height + below + GAP)
        sheet.paste(tile, (left, top))
        if found.names:
            name = _fitted(found.names[i], width + GAP // 2, font)
            pen.text((left, top + height + 2), name, fill=INK, font=font)
    content = BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _tile(image: Tensor) -> Any:
    """One image in RGB, small ones larger by a whole factor, large ones smaller."""
    from PIL import Image

    picture = Image.fromarray(image.squeeze(-1).numpy()).convert("RGB")
    longest = max(picture.size)
    if longest > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return picture
    factor = max(1, -(-LEAST_SIDE // longest))
    side = (picture.width * factor, picture.height * factor)
    return picture.resize(side, Image.Resampling.NEAREST)


def _font() -> Any:
    import matplotlib
    from PIL import ImageFont

    # It has more letters than Pillow's own.
    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", LETTERS
    )


def _fitted(text: str, width: int, font: Any) -> str:
    """The text, or as much of its beginning as is no wider."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}\u2026") > width:
        text = text[:-1]
    return f"{text}\u2026"
