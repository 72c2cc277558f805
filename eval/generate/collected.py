"""What is done with a complete folder of generated samples: statistics, and files for others."""

import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.image_sets import COLOURS, GREY
from fewstep.eval.generate.seeds import read_seeds
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.verification import complete
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.networks.extractors import Extractor
from fewstep.writing import whole_file, writing


def unit_tensors(folder: str | Path) -> Iterator[dict[str, Tensor]]:
    """What is kept of each unit in order: ``images``, ``labels``, ``features``, as there are.

    Raises:
        FileNotFoundError, ValueError: if nothing was generated there, a unit is missing, or only
            sums were kept.
    """
    shards = ShardFolder(folder)
    if shards.config()["keep"] == "none":
        raise ValueError(f"{folder} holds sums only; generate with keep='features' or 'images'")
    for piece in sorted(complete(shards).pieces, key=lambda piece: piece.units[0].unit):
        yield shards.load(piece)


def unit_features(folder: str | Path, extractor: Extractor) -> Iterator[Tensor]:
    """Features (k, dim) of each unit in order: those kept, if they are of this extractor.

    Args:
        folder: where samples were generated.
        extractor: of kept images any one, else the one that the features were made with.

    Raises:
        FileNotFoundError, ValueError: as :func:`unit_tensors`, or if there are only features of
            another extractor.
    """
    own = _check_extractor(folder, extractor)
    for tensors in unit_tensors(folder):
        features = tensors.get("features") if own else None
        yield extractor(tensors["images"]).float().cpu() if features is None else features


def statistics(folder: str | Path, extractor: Extractor) -> ExactMoments:
    """Exact sums of the features of all samples, bit for bit the same whatever was kept.

    Args:
        folder, extractor: as in :func:`unit_features`.

    Raises:
        FileNotFoundError, ValueError: if nothing was generated there, a unit is missing, or
            features are of another extractor.
    """
    _check_extractor(folder, extractor)
    shards = ShardFolder(folder)
    moments = ExactMoments(extractor.dim, extractor.scale, extractor.bound)
    if shards.config()["keep"] == "none":
        for piece in complete(shards).pieces:
            state = shards.load(piece)
            moments.merge(ExactMoments.from_state(state, extractor.scale, extractor.bound))
        return moments
    for features in unit_features(folder, extractor):
        moments.add(features)
    return moments


def _check_extractor(folder: str | Path, extractor: Extractor) -> bool:
    """Whether what is kept is of this extractor. Raises ValueError if it is all there is."""
    config = ShardFolder(folder).config()
    own = (extractor.name, extractor.fingerprint, extractor.scale)
    there = tuple(config[f"extractor{suffix}"] for suffix in ("", "_weights", "_scale"))
    if config["keep"] != "images" and own != there:
        raise ValueError(
            f"{folder} holds features of {there[0]} ({str(there[1])[:8]}, scale {there[2]}), not "
            f"of {own[0]} ({own[1][:8]}, scale {own[2]}); generate with keep='images' for any other"
        )
    return own == there


def export_npz(folder: str | Path, path: str | Path) -> None:
    """Writes the images as ADM's evaluation reads them: ``arr_0`` uint8 (n, h, w, c).

    With classes, ``arr_1`` holds the labels. Memory does not grow with n.

    Raises:
        FileNotFoundError, ValueError: as :func:`unit_tensors`, or if there are no images of 1 or 3
            channels.
    """
    seeds, shape = _image_shape(folder)
    labels: list[Tensor] = []
    with whole_file(path) as part, zipfile.ZipFile(part, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (seeds, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for tensors in unit_tensors(folder):
                file.write(tensors["images"].movedim(1, -1).contiguous().numpy().tobytes())
                labels += [tensors["labels"]] if "labels" in tensors else []
        if labels:
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, torch.cat(labels).numpy())


def export_png(folder: str | Path, path: str | Path) -> None:
    """Writes each image as ``SEED.png`` of six digits or more, into a folder or a ``.zip``.

    Raises:
        ImportError: without Pillow.
        FileNotFoundError, ValueError: as :func:`export_npz`.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing PNG files needs Pillow: pip install pillow") from error
    _image_shape(folder)
    path = Path(path)

    def pictures() -> Iterator[tuple[str, bytes]]:
        numbers = read_seeds(ShardFolder(folder).config()["seeds"])
        seeds, digits = iter(numbers), max(6, len(str(max(numbers))))  # names sort as seeds do
        for tensors in unit_tensors(folder):
            for image in tensors["images"].movedim(1, -1).numpy():
                content = BytesIO()
                Image.fromarray(image.squeeze(-1) if image.shape[-1] == GREY else image).save(
                    content, "png"
                )
                yield f"{next(seeds):0{digits}d}.png", content.getvalue()

    if path.suffix.lower() == ".zip":
        with whole_file(path) as part, zipfile.ZipFile(part, "w") as archive:
            for name, content in pictures():
                archive.writestr(name, content)
        return
    if path.exists() and any(path.iterdir()):  # others' images would count among these
        raise ValueError(f"{path} is not empty; export into a new folder")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as made:
        target = Path(made) / "images"
        target.mkdir()
        for name, content in pictures():
            with writing(path / name):
                (target / name).write_bytes(content)
        target.replace(path)  # all of them, or none


def _image_shape(folder: str | Path) -> tuple[int, tuple[int, int, int]]:
    """How many images there are, and (h, w, c) of one."""
    config = ShardFolder(folder).config()
    shape = config["image_shape"]
    if config["keep"] != "images" or len(shape) != 3 or shape[0] not in (GREY, COLOURS):
        raise ValueError(
            f"{folder} keeps {config['keep']} of samples of shape {tuple(shape)}; an export needs "
            "images of shape (1, h, w) or (3, h, w)"
        )
    return len(read_seeds(config["seeds"])), (shape[1], shape[2], shape[0])
