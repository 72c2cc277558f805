"""Statistics files: round trips with the other harnesses, refused pickles, named mistakes."""

import os
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewstep.eval.metrics.frechet import frechet_distance
from fewstep.eval.metrics.statistics_files import (
    FeatureStatistics,
    load_edm2,
    load_npz,
    load_statistics,
    save_edm2,
    save_npz,
)

ROWS = np.random.default_rng(0).normal(size=(50, 6)) + 3
MU, SIGMA = ROWS.mean(0), np.cov(ROWS, rowvar=False)
SIGMA = (SIGMA + SIGMA.T) / 2
FULL = FeatureStatistics(
    MU, SIGMA, 50, "edm", "inception-2015-12-05", weights_sha256="6726825d", dataset_hash="ab12"
)
BARE = FeatureStatistics(MU, SIGMA)


def same(first: FeatureStatistics, second: FeatureStatistics) -> bool:
    """Bit for bit, and the rest of the fields."""
    names = ("n", "protocol", "extractor", "weights_sha256", "dataset_hash")
    return (
        np.array_equal(first.mu, second.mu)
        and np.array_equal(first.sigma, second.sigma)
        and all(getattr(first, name) == getattr(second, name) for name in names)
    )


def pytorch_fid_npz(path: Path) -> None:  # save_fid_stats
    np.savez_compressed(path, mu=MU, sigma=SIGMA)


def edm_npz(path: Path) -> None:  # fid.py ref; TTUR's files are the same
    np.savez(path, mu=MU, sigma=SIGMA)


def adm_npz(path: Path) -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    np.savez(path, mu=MU, sigma=SIGMA, mu_s=MU[:2], sigma_s=SIGMA[:2, :2], arr_0=images)


def ttur_npz(path: Path) -> None:
    """With strings as object arrays, which some old files have beside the statistics."""
    np.savez(path, mu=MU, sigma=SIGMA, note=np.array(["a", None], dtype=object))


@pytest.mark.parametrize("write", [pytorch_fid_npz, edm_npz, adm_npz, ttur_npz])
def test_npz_of_others(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "ref.NPZ.npz")
    assert same(load_statistics(tmp_path / "ref.NPZ.npz"), BARE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", [dict, OrderedDict])
def test_pickle_of_edm2(tmp_path: Path, protocol: int, container: type) -> None:
    content = container(
        num_images=np.int64(50), fid=container(mu=MU, sigma=SIGMA),
        fd_dinov2=container(mu=MU[:3].astype(np.float32), sigma=SIGMA[:3, :3].astype(np.float32)),
    )  # fmt: skip
    (tmp_path / "ref.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert same(load_statistics(tmp_path / "ref.pkl"), FeatureStatistics(MU, SIGMA, 50))
    small = load_statistics(tmp_path / "ref.pkl", "fd_dinov2")
    assert small.mu.dtype == small.sigma.dtype == np.float64
    assert small.mu.shape == (3,)


def test_pickle_of_numpy_1(tmp_path: Path) -> None:
    """Its modules had other names."""
    old = pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}}, protocol=2)
    old = old.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "ref.pkl").write_bytes(old)
    assert same(load_statistics(tmp_path / "ref.pkl"), BARE)


@pytest.mark.parametrize("statistics", [FULL, BARE])
def test_our_npz_survives_and_the_others_read_it(
    tmp_path: Path, statistics: FeatureStatistics
) -> None:
    path = tmp_path / "ref.npz"
    save_npz(statistics, path)
    assert same(load_statistics(path), statistics)
    with np.load(path) as file:  # edm, edm2, TTUR: no pickles, all keys read
        content = dict(file)
    assert np.array_equal(content["sigma"], SIGMA)
    if statistics is BARE:
        assert set(content) == {"mu", "sigma"}
    else:
        assert int(content["n"]) == 50


def test_pytorch_fid_reads_our_npz(tmp_path: Path) -> None:
    module = pytest.importorskip("pytorch_fid.fid_score")
    save_npz(FULL, tmp_path / "ref.npz")
    mu, sigma = module.compute_statistics_of_path(str(tmp_path / "ref.npz"), None, 1, 6, "cpu")
    assert frechet_distance(mu, sigma, MU, SIGMA) == 0


def test_edm2_pickle_survives(tmp_path: Path) -> None:
    path, other = tmp_path / "ref.pkl", FeatureStatistics(MU[:2], SIGMA[:2, :2], 50)
    save_edm2({"fid": FULL, "fd_dinov2": other}, path)
    found = load_edm2(path)
    assert list(found) == ["fid", "fd_dinov2"]
    assert same(found["fid"], FULL)
    assert same(found["fd_dinov2"], other)
    plain = pickle.loads(path.read_bytes())
    assert plain["num_images"] == 50
    assert np.array_equal(plain["fid"]["mu"], MU)
    save_edm2({"fid": BARE}, path)
    assert set(pickle.loads(path.read_bytes())) == {"fid"}


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("bait", "name"),
    [
        (Malicious(os.system, "touch pwned"), "posix.system"),
        (Malicious(eval, "open('pwned', 'w')"), "builtins.eval"),
        (Malicious(getattr, "", "join"), "builtins.getattr"),
        (Malicious(subprocess.Popen, ["touch", "pwned"]), "subprocess.Popen"),
        (Malicious(np.load, "ref.pkl"), "numpy.load"),
        (torch.zeros(2), "torch._utils._rebuild_tensor_v2"),
    ],
)
def test_pickles_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bait: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"fid": {"mu": MU, "sigma": SIGMA}, "extra": bait}
    Path("ref.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"^ref.pkl: its pickle asks for {name}, which"):
        load_statistics("ref.pkl")
    assert not Path("pwned").exists()


def test_objects_in_an_npz_are_not_unpickled(tmp_path: Path) -> None:
    baited = np.array([Malicious(os.system, f"touch {tmp_path}/pwned")], dtype=object)
    np.savez(tmp_path / "ref.npz", mu=baited, sigma=SIGMA)
    with pytest.raises(ValueError, match=r"ref\.npz: Object arrays cannot be loaded"):
        load_npz(tmp_path / "ref.npz")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"ref{suffix}"
    save_npz(FULL, path) if suffix == ".npz" else save_edm2({"fid": FULL}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"ref\{suffix}"):
        load_statistics(path)


def test_changed_bytes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ref.npz"
    np.savez(path, mu=MU, sigma=SIGMA)
    content = bytearray(path.read_bytes())
    at = content.index(SIGMA.tobytes()[:16])
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ref\.npz is damaged.*CRC"):
        load_statistics(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MU}, "has no sigma, only mu"),
        ({"arr_0": ROWS}, "has no mu and no sigma, only arr_0; arr_0 are images or features"),
        ({"mu": MU, "sigma": SIGMA[:, :5]}, r"got \(6,\) and \(6, 5\)"),
        ({"mu": MU[:, None], "sigma": SIGMA}, r"got \(6, 1\)"),
        ({"mu": MU[:5], "sigma": SIGMA}, r"got \(5,\) and \(6, 6\)"),
        ({"mu": MU, "sigma": np.triu(SIGMA)}, "not symmetric"),
        ({"mu": MU * np.nan, "sigma": SIGMA}, "nan or infinite"),
        ({"mu": MU.astype(int), "sigma": SIGMA}, "must be floating point, got int64"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_what_is_no_statistics_is_named(
    tmp_path: Path, suffix: str, arrays: dict[str, Any], message: str
) -> None:
    path = tmp_path / f"ref{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(pickle.dumps({"fid": arrays}))
        message = message.replace(", only", " for fid, only")
    with pytest.raises(ValueError, match=rf"ref\{suffix}: .*{message}"):
        load_statistics(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([MU, SIGMA], "holds a list, not a dict"),
        ({"num_images": 5}, "no statistics, only num_images"),
        ({}, "no statistics, only nothing"),
        ({"fid": {"mu": [0.0], "sigma": [[1.0]]}}, "must be arrays, got list"),
        ({"fd_dinov2": {"mu": MU, "sigma": SIGMA}}, "no statistics of fid, only of fd_dinov2"),
        ({"num_images": 1, "fid": {"mu": MU, "sigma": SIGMA}}, "at least 2 samples, got n = 1"),
    ],
)
def test_other_pickles_are_named(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "ref.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"ref\.pkl.*{message}"):
        load_statistics(tmp_path / "ref.pkl")


def test_other_suffixes_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.npy must end in \.npz or \.pkl; features in \.npy"):
        load_statistics("x.npy")
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_npz(FULL, tmp_path / "ref")
    with pytest.raises(ValueError, match=r"must end in \.pkl"):
        save_edm2({"fid": FULL}, tmp_path / "ref.npz")
    with pytest.raises(ValueError, match="one number of samples"):
        save_edm2({"fid": FULL, "fd_dinov2": BARE}, tmp_path / "ref.pkl")
    with pytest.raises(FileNotFoundError):
        load_statistics(tmp_path / "none.npz")
    np.save(tmp_path / "single.npy", MU)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(ValueError, match=r"single\.npz is damaged, truncated or of another"):
        load_statistics(tmp_path / "single.npz")
