"""``fewstep verify`` finds whatever does not come out again."""

import json
from pathlib import Path
from typing import Any

import pytest
from calc_folders import USE, Capture, make_folder
from command_line import call, tree
from generation_runs import SHAPE, small_run
from image_files import coloured, save_all

from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.recipe import Recipe
from fewstep.eval.networks.extractors import PixelExtractor

folder = pytest.fixture(make_folder)


def test_verify_comes_to_the_same_scores(folder: Path, capsys: Capture) -> None:
    arguments = ("--ref", "ref.npz", "--metrics", "fd,kid", "--repeats", "2", "-o", "report")
    assert call("calc", "a", *arguments) == 0
    before = tree(folder / "a")
    assert call("verify", "a") == 0
    out = capsys.readouterr().out
    assert "its hashes and scores come out again" in out
    assert "a holds" in out
    assert tree(folder / "a") == before
    assert call("verify", "b") == 0  # without a result, the files alone
    assert "scores" not in capsys.readouterr().out


def change(path: Path, *keys: Any, value: Any) -> None:
    table = json.loads(path.read_text())
    inner = table
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(table))


CHANGES: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "a score": (("sets", 0, "metrics", "fd"), 1.0, "samples 0 to 21: fd 1 there"),
    "one more": (("sets", 0, "metrics", "fid"), 1.0, "fid 1.0 there, None now"),
    "samples": (("sets", 0, "samples_hash"), "0" * 64, "samples_hash 000000000000 there"),
    "sums": (("sets", 0, "statistics_hash"), "0" * 64, "statistics_hash 000000000000 there"),
    "reference": (("ref", "hash"), "0" * 64, "hash 000000000000 there"),
    "weights": (("extractor", "sha256"), "0" * 64, "weights of pixels:1x4x4: 000000000000 there"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_verify_finds_a_result_of_something_else(folder: Path, capsys: Capture, name: str) -> None:
    keys, value, line = CHANGES[name]
    assert call("calc", "a", "--ref", "ref.npz", "-o", "report") == 0
    change(folder / "a" / "result.json", *keys, value=value)
    assert call("verify", "a") == 1
    out = capsys.readouterr().out
    assert line in out
    assert "a does not hold" in out


def test_verify_finds_another_reference(folder: Path, capsys: Capture) -> None:
    assert call("calc", "a", "--ref", "ref.npz", "-o", "report") == 0
    save_all(folder / "real", coloured(1, 4, seed=9)[..., :1])
    assert call("ref", "real", "-o", "ref.npz", *USE) == 0
    assert call("verify", "a") == 1
    out = capsys.readouterr().out
    assert "result.json: reference" in out
    assert "fd " in out


def test_verify_names_damage_and_what_is_missing(folder: Path, capsys: Capture) -> None:
    victim = folder / "a" / "unit-000001.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert call("verify", "a") == 1
    out = capsys.readouterr().out
    assert "damaged: unit-000001.safetensors" in out
    assert "missing: 1 units, from unit 1 on" in out
    (folder / "a" / "result.json").write_text("{")
    assert call("verify", "b") == 0
    assert call("verify", "nowhere") == 2
    generate_images(small_run(extractor=PixelExtractor(SHAPE)), folder / "a")
    assert call("verify", "a") == 2
    assert "run fewstep calc -o again" in capsys.readouterr().err


def test_verify_makes_units_again(tmp_path: Path, capsys: Capture) -> None:
    recipe = Recipe("generation_runs:blobs", "euler_a", 3, "100-121", "icg:1.4", unit=4)
    generate_images(recipe.build("cpu"), tmp_path / "run", recipe=recipe)
    assert call("verify", tmp_path / "run", "--recompute", "2", "--device", "cpu") == 0
    assert "made again: units" in capsys.readouterr().out
    assert call("verify", tmp_path / "run", "--recompute", "-1") == 2
