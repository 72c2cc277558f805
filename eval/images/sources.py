"""Sets of images by name: files, arrays, what ``fewstep gen`` made, and the bundled dataset."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from fewstep.eval.common.image_sets import ImageSet, check_count
from fewstep.eval.generate.collected import unit_tensors
from fewstep.eval.generate.seeds import read_seeds
from fewstep.eval.generate.shards import CONFIG, ShardFolder
from fewstep.eval.images.arrays import array_images
from fewstep.eval.images.files import OnError, file_images
from fewstep.models.data import load_fashion

BUNDLED = "fashion"
KINDS = "a folder, a .zip, a .npy or a .npz of images, a folder of fewstep gen, or fashion"


def check_there(source: str | Path) -> None:
    """Raises FileNotFoundError if images of that name are not there at all."""
    if str(source) != BUNDLED and not Path(source).exists():
        raise FileNotFoundError(f"no file or folder {source}; images are {KINDS}")


def open_images(
    source: str | Path, *, num: int | None = None, on_error: OnError = "raise"
) -> ImageSet:
    """The images of a name, looked through so that reading them cannot fail later.

    Args:
        source: a folder of image files, to any depth, or a ``.zip`` of them (what else is there
            is warned about); a ``.npz`` or ``.npy`` of an array uint8 (n, h, w, c); a folder that
            ``fewstep gen`` wrote; or ``fashion``, the training split of Fashion-MNIST (write
            ``./fashion`` for a folder).
        num: take the first of them only.
        on_error: ``skip`` leaves out image files that cannot be used; ``raise`` names them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: in one line that names what cannot be used.
    """
    if str(source) == BUNDLED:
        return _fashion(num)
    check_there(source)
    path = Path(source)
    if path.is_dir():
        if is_generated(path):
            return _generated(path, num)
        return file_images(path, num, on_error)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return file_images(path, num, on_error)
    if suffix in (".npy", ".npz"):
        return array_images(path, num)
    hint = "; it is a file of statistics: name it by --ref" if suffix in (".pkl", ".pickle") else ""
    raise ValueError(f"{path} is no set of images; images are {KINDS}{hint}")


def is_generated(path: Path) -> bool:
    """Whether ``fewstep gen`` wrote the folder."""
    return (path / CONFIG).is_file() and any(path.glob("journal-*.jsonl"))


def _fashion(num: int | None) -> ImageSet:
    images, _ = load_fashion("train")
    n = check_count(BUNDLED, len(images), num)
    _, c, h, w = images.shape
    return ImageSet(BUNDLED, n, (c, h, w), lambda: iter(images[:n].split(1024)))


def _generated(path: Path, num: int | None) -> ImageSet:
    config = ShardFolder(path).config()
    if config["keep"] != "images":
        raise ValueError(
            f"{path} keeps {config['keep']} and no images; generate with --keep images for this"
        )
    n = check_count(str(path), len(read_seeds(config["seeds"])), num)
    first = next(unit_tensors(path))["images"]
    if first.ndim != 4:
        raise ValueError(f"{path} holds samples of shape {tuple(first.shape[1:])}, not images")
    _, c, h, w = first.shape

    def read() -> Iterator[Tensor]:
        left = n
        for tensors in unit_tensors(path):
            if left <= 0:
                return
            yield tensors["images"][:left]
            left -= len(tensors["images"])

    return ImageSet(str(path), n, (c, h, w), read)
