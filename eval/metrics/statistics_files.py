"""Files of feature statistics: ours, and those of the harnesses whose references people have.

=============  ======  =============================================================
written by     suffix  content
=============  ======  =============================================================
fewstep        .npz    ``mu``, ``sigma``, ``n``, the names of what made them, and if asked
                       ``features``, a sample of (k, d) for what needs more than moments
pytorch-fid    .npz    ``mu``, ``sigma``; so too edm and TTUR
ADM            .npz    ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` and images ``arr_0``
edm2           .pkl    ``{metric: {"mu": ..., "sigma": ...}, "num_images": ...}``; beside ``mu``
                       and ``sigma`` ours have the other entries of our .npz
=============  ======  =============================================================

Of ADM's, the spatial features are left aside, and the images too: they are 10,000 for precision and
recall, not what ``mu`` and ``sigma`` were made of (openai/guided-diffusion, ``evaluations``). The
other harnesses ignore the keys that only our files have, so one writer serves them all.
"""

import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fewstep.eval.metrics.frechet import as_gaussian
from fewstep.writing import writing

# What pickled arrays, numpy scalars and containers name; numpy moved its own in 2.0. Whatever it
# returns, none of these runs code from the file.
ALLOWED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core")
      for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("collections", "OrderedDict"), ("builtins", "set"), ("builtins", "frozenset"),
}  # fmt: skip
# Old numpy cannot read what numpy 2 writes by protocol 5.
PROTOCOL = 4


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and covariance of features, and what they were made of as far as it is known.

    Attributes:
        mu: (d,), float64.
        sigma: (d, d), float64, symmetric, with divisor n - 1.
        n: how many samples.
        protocol: name of the preprocessing.
        extractor: name of the feature network.
        weights_sha256: of the weights of the extractor, in hexadecimal.
        dataset_hash: of the images.

    Raises:
        ValueError: what is no mean and covariance.
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n: int | None = None
    protocol: str | None = None
    extractor: str | None = None
    weights_sha256: str | None = None
    dataset_hash: str | None = None

    def __post_init__(self) -> None:
        mu, sigma = as_gaussian(self.mu, self.sigma, "these statistics")
        if self.n is not None and self.n < 2:
            raise ValueError(f"statistics need at least 2 samples, got n = {self.n}")
        object.__setattr__(self, "mu", mu.numpy())
        object.__setattr__(self, "sigma", sigma.numpy())


TEXTS = tuple(field.name for field in fields(FeatureStatistics))[3:]


def load_statistics(path: str | Path, metric: str = "fid") -> FeatureStatistics:
    """Statistics of any file of the table above, by its suffix.

    Args:
        path: an .npz or .pkl file.
        metric: which of the statistics of a .pkl; edm2's are ``fid`` and ``fd_dinov2``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: in one line with the path: another suffix, a truncated file, missing keys,
            wrong shapes, values that are no statistics, a pickle with anything but arrays.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return load_npz(path)
    if suffix in (".pkl", ".pickle"):
        found = load_edm2(path)
        if metric not in found:
            raise ValueError(f"{path} has no statistics of {metric}, only of {', '.join(found)}")
        return found[metric]
    raise ValueError(
        f"{path} must end in .npz or .pkl; features in .npy are not statistics: compute their mean "
        "and covariance, and save them with save_npz"
    )


def load_npz(path: str | Path) -> FeatureStatistics:
    """Statistics of an .npz of any of the harnesses; see :func:`load_statistics`."""
    with _opened(path) as file, np.load(file, allow_pickle=False) as arrays:
        _check_keys(arrays.files)
        n = int(arrays["n"]) if "n" in arrays.files else None
        texts = {name: str(arrays[name]) for name in TEXTS if name in arrays.files}
        return FeatureStatistics(arrays["mu"], arrays["sigma"], n, **texts)


def load_features(path: str | Path, metric: str = "fid") -> NDArray[np.float32] | None:
    """The features (k, d) of a file of ours; None of a file that has none.

    Args:
        path: an .npz or .pkl.
        metric: whose features of a .pkl.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or features of another size than its statistics.
    """
    with _opened(path) as file, _entries(path, file, metric) as entries:
        if "features" not in entries:
            return None
        _check_keys(entries)
        features: NDArray[Any] = _array(entries["features"])
        dim = len(entries["mu"])
        found = features.astype(np.float32) if features.dtype.kind == "f" else np.empty(0)
        if found.shape != (max(1, len(found)), dim) or not np.isfinite(found).all():
            raise ValueError(
                f"its features must be finite and (k, {dim}), floats, as its statistics are, got "
                f"{features.dtype} {features.shape}; run fewstep ref again"
            )
        return found


def save_npz(
    statistics: FeatureStatistics, path: str | Path, features: NDArray[np.float32] | None = None
) -> None:
    """An .npz that pytorch-fid, edm and edm2 read too; what is None is left out.

    Args:
        statistics: of all samples.
        path: ends in .npz.
        features: (k, d) of some of the samples.

    Raises:
        ValueError: if ``path`` does not end in .npz, by which the harnesses know the format.
    """
    _check_suffix(path, ".npz")
    known = {name: getattr(statistics, name) for name in ("n", *TEXTS)}
    extra: dict[str, Any] = {name: np.array(x) for name, x in known.items() if x is not None}
    if features is not None:
        extra["features"] = features.astype(np.float32)
    with writing(path), Path(path).open("wb") as file:
        np.savez_compressed(file, mu=statistics.mu, sigma=statistics.sigma, **extra)


def load_edm2(path: str | Path) -> dict[str, FeatureStatistics]:
    """All statistics of an edm2 .pkl, by the name of the metric; see :func:`load_statistics`."""
    with _opened(path) as file:
        content = _unpickled(file)
        # calculate_metrics.py of edm2 puts num_images beside the metrics.
        n = content.get("num_images")
        found = {}
        for metric, entry in content.items():
            if not isinstance(entry, dict):
                continue
            _check_keys(entry, f" for {metric}")
            texts = {name: str(entry[name]) for name in TEXTS if entry.get(name) is not None}
            found[str(metric)] = FeatureStatistics(
                _array(entry["mu"]), _array(entry["sigma"]), None if n is None else int(n), **texts
            )
        if not found:
            raise ValueError(
                f"it has no statistics, only {', '.join(map(str, content)) or 'nothing'}"
            )
        return found


def save_edm2(
    statistics: Mapping[str, FeatureStatistics],
    path: str | Path,
    features: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """A .pkl for edm2, which reads ``mu`` and ``sigma`` of a metric and passes by all else.

    Args:
        statistics: by metric.
        path: ends in .pkl.
        features: (k, d) of some of the samples, by metric.

    Raises:
        ValueError: if ``path`` does not end in .pkl, or the statistics are of different n.
    """
    _check_suffix(path, ".pkl")
    counts = {entry.n for entry in statistics.values()}
    if len(counts) != 1:
        raise ValueError(f"{path} has one number of samples, got {counts or 'no statistics'}")
    content: dict[str, Any] = {} if counts == {None} else {"num_images": counts.pop()}
    for metric, entry in statistics.items():
        known = {name: getattr(entry, name) for name in TEXTS}
        known |= {"features": (features or {}).get(metric)}
        held = {name: value for name, value in known.items() if value is not None}
        content[metric] = {"mu": entry.mu, "sigma": entry.sigma, **held}
    with writing(path), Path(path).open("wb") as file:
        pickle.dump(content, file, protocol=PROTOCOL)


def left_out(path: str | Path, metric: str = "fid") -> list[str]:
    """What a file holds beside the statistics of a metric, which nothing here reads or keeps.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_statistics`.
    """
    read = {"mu", "sigma", "n", "features", *TEXTS}
    with _opened(path) as file, _entries(path, file, metric) as entries:
        others = [name for name in entries if name not in read]
    if Path(path).suffix.lower() == ".npz":
        return others
    with _opened(path) as file:
        whole = _unpickled(file)
    return [*others, *(str(name) for name in whole if name not in (metric, "num_images"))]


@contextmanager
def _entries(path: str | Path, file: BinaryIO, metric: str) -> Iterator[Mapping[str, Any]]:
    """The entries of an .npz, or those of a metric in a .pkl."""
    if Path(path).suffix.lower() == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
        return
    entry = _unpickled(file).get(metric)
    yield entry if isinstance(entry, dict) else {}


def _unpickled(file: BinaryIO) -> dict[Any, Any]:
    content = _ArraysOnly(file).load()
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a dict of metrics")
    return content


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays, numbers, strings and containers, and imports nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise ValueError(
                f"its pickle asks for {module}.{name}, which statistics do not need and could run "
                "code; ask its author for an npz with mu and sigma"
            )
        return super().find_class(module, name)


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    """The file; errors of reading it become one ValueError that names it."""
    with Path(path).open("rb") as file:
        try:
            yield file
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except (
            zipfile.BadZipFile, zlib.error, EOFError, pickle.UnpicklingError, KeyError, IndexError,
            TypeError, AttributeError, ImportError, MemoryError, OverflowError, OSError,
        ) as error:  # fmt: skip
            raise ValueError(
                f"{path} is damaged, truncated or of another format ({error}); copy it again"
            ) from error


def _check_keys(keys: Any, where: str = "") -> None:
    missing = [key for key in ("mu", "sigma") if key not in keys]
    if missing:
        hint = "; arr_0 are images or features, of which to compute them" if "arr_0" in keys else ""
        raise ValueError(
            f"it has no {' and no '.join(missing)}{where}, only {', '.join(map(str, keys))}{hint}"
        )


def _array(value: Any) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"mu and sigma must be arrays, got {type(value).__name__}")
    return value


def _check_suffix(path: str | Path, suffix: str) -> None:
    if Path(path).suffix.lower() != suffix:
        raise ValueError(f"{path} must end in {suffix}, by which programs know the format")
