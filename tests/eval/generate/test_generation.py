"""Generated images depend on their seeds and settings alone; what is kept of them agrees."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generation_runs import SHAPE, blobs, small_run
from hypothesis import given
from hypothesis import strategies as st

from fewstep.eval.common.image_sets import quantised
from fewstep.eval.generate import generation
from fewstep.eval.generate.collected import export_npz, export_png, statistics, unit_tensors
from fewstep.eval.generate.generation import (
    generate_images,
    generate_units,
    make_writer,
    rank_and_world,
)
from fewstep.eval.generate.seeds import read_seeds, seeds_text
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.networks.extractors import PixelExtractor

PIXELS = PixelExtractor(SHAPE)


def everything(folder: Path, name: str = "images") -> torch.Tensor:
    return torch.cat([tensors[name] for tensors in unit_tensors(folder)])


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that one process made."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("known")
    generate_images(small_run(), folder)
    return folder


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("keep", ["images", "features", "none"])
def test_any_world_and_order_give_the_same(
    known: Path, tmp_path: Path, world: int, keep: Any
) -> None:
    run = small_run(keep=keep, extractor=PIXELS)
    for rank in reversed(range(world)):
        generate_images(run, tmp_path / "ranks", rank=rank, world=world, checkpoint_units=2)
    shards = ShardFolder(tmp_path / "reversed")
    shards.claim(run.config)
    generate_units(run, reversed(range(run.units)), make_writer(run, shards, 0))
    expected = statistics(known, PIXELS).state()
    for folder in (tmp_path / "ranks", tmp_path / "reversed"):
        assert verify(folder).hash == verify(known).hash
        found = statistics(folder, PIXELS).state()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_images_do_not_depend_on_their_number(known: Path, tmp_path: Path) -> None:
    """The last unit is filled up: its two samples are those of a full unit."""
    generate_images(small_run(24), tmp_path)
    assert torch.equal(everything(known), everything(tmp_path)[:22])
    assert torch.equal(everything(known, "labels"), everything(tmp_path, "labels")[:22])


def test_another_unit_size_may_change_the_images(known: Path, tmp_path: Path) -> None:
    """So the tests here would see a batch of another size."""
    generate_images(small_run(unit_size=3), tmp_path)
    assert not torch.equal(everything(known), everything(tmp_path))


def test_a_sample_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    """Start noise, class, the sampler's noise and the draws of guidance: all move with the seed."""
    seeds = [7, 2**32 - 1, 0, 100]
    generate_images(small_run(seeds=seeds), tmp_path / "a")
    generate_images(small_run(seeds=seeds[::-1]), tmp_path / "b")
    assert torch.equal(everything(tmp_path / "a").flip(0), everything(tmp_path / "b"))
    images = everything(tmp_path / "a")
    assert len({image.numpy().tobytes() for image in images}) == 4


def test_classes_are_uniform_or_in_turn(tmp_path: Path) -> None:
    uniform, turn = (
        small_run(2000, nfe=1, guidance="none", unit_size=500, classes=classes)
        for classes in ("uniform", "turn")
    )
    labels = torch.cat([u for i in range(4) if (u := uniform.make(i).labels) is not None])
    assert abs(float(labels.double().mean()) - 0.5) < 4 * 0.5 / 2000**0.5  # 4 deviations
    assert turn.make(1).labels.tolist() == [0, 1] * 250
    assert uniform.config["classes"] == "uniform"


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([-1], "got -1"),
        ([3, 2**32], r"got 4294967296: .* those of seed 0"),
        ([5, 6, 5], "there twice"),
        ([], "no seeds"),
    ],
)
def test_seeds_that_would_repeat_are_refused(seeds: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_run(seeds=seeds)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, unique=True))
def test_seeds_come_back_from_their_text(seeds: list[int]) -> None:
    assert read_seeds(seeds_text(seeds)) == seeds
    assert seeds_text(range(50_000)) == "0-49999"


@pytest.mark.parametrize("text", ["", "a", "5-1", "-3", "1,,2", "1-2-3", "4294967296", "0.5"])
def test_other_texts_are_no_seeds(text: str) -> None:
    assert read_seeds(" 1, 5-7") == [1, 5, 6, 7]
    with pytest.raises(ValueError, match=f"as in 0-49999 or 1,2,5-9; got '{text}'"):
        read_seeds(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit_size": 0}, "unit_size must be at least 1"),
        ({"classes": "all"}, "classes must be one of uniform, turn"),
        ({"keep": "all"}, "keep must be one of none, features, images"),
        ({"keep": "features"}, "needs an extractor"),
        ({"sampler": "nosuch"}, "nosuch"),
        ({"guidance": "nosuch"}, "nosuch"),
        ({"nfe": 0}, "nfe|call"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_run(**change)


def test_rounding_is_edms() -> None:
    x = torch.tensor([-2.0, -1.0, -0.5 / 127.5, 0.0, 0.5 / 127.5, 1.0, 2.0], dtype=torch.float64)
    assert quantised(x).tolist() == [0, 0, 127, 128, 128, 255, 255]
    with pytest.raises(ValueError, match="sample 1 of the unit is not finite"):
        quantised(torch.tensor([[0.0], [float("nan")]]))


def test_features_are_those_of_the_kept_images(known: Path, tmp_path: Path) -> None:
    generate_images(small_run(keep="features", extractor=PIXELS), tmp_path / "features")
    generate_images(small_run(extractor=PIXELS), tmp_path / "both")
    expected = PIXELS(everything(known))
    for folder in ("features", "both"):
        assert torch.equal(everything(tmp_path / folder, "features"), expected)
    assert torch.equal(everything(tmp_path / "both"), everything(known))


def test_statistics_are_of_one_extractor_and_all_units(tmp_path: Path) -> None:
    run = small_run(keep="features", extractor=PIXELS)
    generate_images(run, tmp_path, rank=0, world=2)
    with pytest.raises(ValueError, match="3 of 6 units"):
        statistics(tmp_path, PIXELS)
    assert verify(tmp_path).hash is None
    other = PixelExtractor(SHAPE)
    other.scale = 2.0**10
    with pytest.raises(ValueError, match="holds features of pixels:1x4x4"):
        statistics(tmp_path, other)


def test_calls_and_rows_are_counted(known: Path) -> None:
    """ICG takes two rows for each sample."""
    for record in verify(known).records.values():
        assert (record.calls, record.network_rows) == (3, 3 * 2 * 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_exports_hold_the_images(tmp_path: Path, channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    run = small_run(6, problem=blobs((channels, 4, 4)))
    folder = tmp_path / "run"
    generate_images(run, folder)
    expected = everything(folder).permute(0, 2, 3, 1).numpy()
    export_npz(folder, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], expected)
        assert np.array_equal(arrays["arr_1"], everything(folder, "labels").numpy())
    export_png(folder, tmp_path / "png")
    export_png(folder, tmp_path / "png.zip")
    names = [f"{seed:06d}.png" for seed in run.seeds]
    with zipfile.ZipFile(tmp_path / "png.zip") as archive:
        assert archive.namelist() == names
        for name, pixels in zip(names, expected, strict=True):
            content = (tmp_path / "png" / name).read_bytes()
            assert content == archive.read(name)
            read = np.asarray(image.open(tmp_path / "png" / name))
            assert np.array_equal(read.reshape(pixels.shape), pixels)


def test_exports_need_images(tmp_path: Path) -> None:
    generate_images(small_run(keep="none", extractor=PIXELS), tmp_path)
    with pytest.raises(ValueError, match="an export needs images"):
        export_npz(tmp_path, tmp_path / "a.npz")
    with pytest.raises(ValueError, match="holds sums only"):
        next(unit_tensors(tmp_path))


def test_ranks_are_in_their_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "launched", lambda: (2, 3))
    assert rank_and_world() == (2, 3)
    assert rank_and_world(0, 1) == (0, 1)
    for rank, world in ((3, 3), (-1, 2), (0, 0), (0, None)):
        with pytest.raises(ValueError, match="rank"):
            rank_and_world(rank, world)


def test_bundled_problems_run(tmp_path: Path) -> None:
    """A vector problem without classes is quantised like any other."""
    from fewstep.eval.problems import load_problem

    run = Generation(load_problem("mix8"), "unipc", 4, range(5), unit_size=4)
    generate_images(run, tmp_path)
    assert everything(tmp_path).shape == (5, 8)
    assert run.config["classes"] == "none"
    assert verify(tmp_path, recompute=2, run=run).ok


def test_the_bundled_network_gives_the_same_on_any_world(tmp_path: Path) -> None:
    """Its features too, whose sums are taken of each rank's units."""
    from fewstep.eval.networks.families import load_extractor
    from fewstep.eval.problems import load_problem

    problem, judge = load_problem("fashion"), load_extractor("fd-cnn:fashion")
    runs = [
        Generation(problem, "sa", 2, range(n), "cfg:2", 8, keep=keep, extractor=judge)
        for n, keep in ((20, "none"), (24, "images"))
    ]
    for rank in (1, 0):
        generate_images(runs[0], tmp_path / "ranks", rank=rank, world=2)
    generate_images(runs[1], tmp_path / "one")
    found, more = verify(tmp_path / "ranks"), verify(tmp_path / "one")
    assert [found.records[unit].pixels for unit in (0, 1)] == [
        more.records[unit].pixels for unit in (0, 1)
    ]
    features = everything(tmp_path / "one", "features")[:20]
    moments = ExactMoments(judge.dim, judge.scale, judge.bound)
    moments.add(features)
    state = statistics(tmp_path / "ranks", judge).state()
    assert all(torch.equal(state[name], value) for name, value in moments.state().items())
