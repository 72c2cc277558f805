"""A folder takes one run's settings only, and tells what in it is not sound."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from generation_runs import SHAPE, blobs, small_run

from fewstep.eval.generate import units
from fewstep.eval.generate.collected import statistics
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.shards import CONFIG, ShardFolder, config_hash
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.networks.extractors import PixelExtractor
from fewstep.eval.problems import Problem
from fewstep.schedules import VE
from fewstep.types import Level


def extractor(**changes: Any) -> PixelExtractor:
    made = PixelExtractor(SHAPE)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def base(**changes: Any) -> Generation:
    return small_run(**{"extractor": extractor(), **changes})


def on_ve() -> Generation:
    problem = blobs()
    problem.denoiser.process = VE()  # type: ignore[misc]
    return base(problem=problem)


def other_problem(**changes: Any) -> Generation:
    return base(problem=replace(blobs(), **changes))


class Halved:
    """Half of what another model answers."""

    def __init__(self, problem: Problem) -> None:
        self.inner, self.process = problem.denoiser, problem.process
        self.null_cond, self.num_classes = problem.denoiser.null_cond, problem.num_classes

    def __call__(self, x: torch.Tensor, level: Level, cond: Any = None) -> torch.Tensor:
        return 0.5 * self.inner(x, level, cond)


# Each setting that can be asked for: what to ask for, and the keys that must be in the difference.
CHANGES: dict[str, tuple[Callable[[], Generation], set[str]]] = {
    "problem": (lambda: other_problem(name="other"), {"problem"}),
    "model": (lambda: other_problem(fingerprint="other"), {"model"}),
    "answers": (lambda: other_problem(denoiser=Halved(blobs())), {"model"}),
    "decoder": (lambda: other_problem(decode=lambda x: x), {"model"}),
    "process": (on_ve, {"process", "plan", "sigmas"}),
    "shape": (lambda: base(problem=blobs((1, 4, 5))), {"shape", "image_shape"}),
    "image_shape": (lambda: base(problem=blobs((1, 5, 4))), {"image_shape"}),
    "num_classes": (lambda: other_problem(num_classes=1), {"num_classes"}),
    "dtype": (lambda: other_problem(exact=False), {"dtype"}),
    "sampler": (lambda: base(sampler="ddim"), {"sampler", "plan"}),
    "nfe": (lambda: base(nfe=4), {"nfe", "sigmas", "plan"}),
    "sigmas": (lambda: base(sampler="euler_a:grid=karras"), {"sampler", "sigmas", "plan"}),
    "plan": (lambda: base(sampler="euler_a:eta=0.5"), {"sampler", "plan"}),
    "guidance": (lambda: base(guidance="icg:1.5"), {"guidance", "guidance_models"}),
    "classes": (lambda: base(classes="turn"), {"classes"}),
    "seeds": (lambda: base(seeds=range(22)), {"seeds"}),
    "unit_size": (lambda: base(unit_size=5), {"unit_size"}),
    "keep": (lambda: base(keep="features"), {"keep"}),
    "extractor": (lambda: base(extractor=extractor(name="other")), {"extractor"}),
    "extractor_weights": (
        lambda: base(extractor=extractor(fingerprint="other")), {"extractor_weights"},
    ),
    "extractor_scale": (lambda: base(extractor=extractor(scale=2.0**9)), {"extractor_scale"}),
}  # fmt: skip
# What the machine and the program decide.
GIVEN = (
    "format", "quantise", "guidance_models", "device", "threads", "matmul_precision", "torch",
    "fewstep", "fingerprint", "extractor_code", "code_of_fewstep",
)  # fmt: skip
# What is told in one line, of the model.
OF_MODEL = ("model", "answers", "decoder")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    generate_images(base(), folder)
    return folder


def refusal(folder: Path, config: dict[str, Any]) -> tuple[set[str], str]:
    """The keys and the last line of the message."""
    with pytest.raises(ValueError, match="was made with other settings") as caught:
        ShardFolder(folder).claim(config)
    _, *lines, remedy = str(caught.value).splitlines()
    told = [line for line in lines if not line.startswith("  the model ")]
    assert all(" there, " in line and line.endswith(" now;") for line in told)
    # Of a list, the place is told that differs first.
    found = {line.strip().partition(":")[0].partition("[")[0] for line in told}
    return found | ({"model"} if len(told) < len(lines) else set()), remedy


@pytest.mark.parametrize("name", CHANGES)
def test_another_setting_is_refused_with_its_difference(made: Path, name: str) -> None:
    change, keys = CHANGES[name]
    run = change()
    before = sorted(made.iterdir())
    found, remedy = refusal(made, run.config)
    assert found >= keys | ({name} - set(OF_MODEL))
    assert "another folder" in remedy
    assert "delete" in remedy
    with pytest.raises(ValueError, match="other settings"):
        generate_images(run, made)
    assert sorted(made.iterdir()) == before


@pytest.mark.parametrize("name", GIVEN)
def test_another_program_or_machine_is_refused(made: Path, name: str) -> None:
    found, _ = refusal(made, {**base().config, name: "other"})
    assert found == {name}


def test_every_setting_is_tried_above() -> None:
    assert set(base().config) == CHANGES.keys() | set(GIVEN)


def test_threads_and_precision_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    monkeypatch.setattr(units, "FORMAT", 99)
    config = base().config
    assert (config["threads"], config["matmul_precision"], config["format"]) == (7, "medium", 99)


def test_equal_settings_go_on(made: Path) -> None:
    assert generate_images(base(), made).reused == 6
    assert generate_images(base(seeds=list(range(100, 122))), made).made == 0


def test_the_hash_of_settings_is_in_the_file(made: Path) -> None:
    whole = json.loads((made / CONFIG).read_text())
    assert whole.pop("sha256") == config_hash(whole)
    assert verify(made).config_sha256 == config_hash(whole["config"])
    assert whole["made_on"]["python"]


@pytest.mark.parametrize("content", ["", "[]", '{"config": {"nfe": 3}, "sha256": "0"}'])
def test_changed_settings_files_are_refused(tmp_path: Path, content: str) -> None:
    generate_images(base(), tmp_path)
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(ValueError, match="changed by hand or damaged"):
        generate_images(base(), tmp_path)
    (tmp_path / CONFIG).unlink()
    with pytest.raises(ValueError, match="journals but no config"):
        generate_images(base(), tmp_path)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(shorten, r"\d+ bytes instead of"), (flip, "another checksum"), (Path.unlink, "not there")],
)
@pytest.mark.parametrize("keep", ["images", "features", "none"])
def test_damaged_files_are_named_and_made_again(
    made: Path, tmp_path: Path, keep: Any, damage: Callable[[Path], None], reason: str
) -> None:
    run = base(keep=keep)
    for rank in (0, 1):
        generate_images(run, tmp_path, rank=rank, world=2)
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    damage(victim)
    found = verify(tmp_path)
    assert found.hash is None
    (text,) = found.damaged
    assert text.startswith(victim.name)
    assert re.search(reason, text)
    # Unit 1, or the sums of the second rank.
    assert found.missing == ([1, 3, 5] if keep == "none" else [1])
    again = generate_images(run, tmp_path, rank=0, world=1)
    assert again.damaged == [text]
    assert again.made == len(found.missing)
    assert verify(tmp_path).hash == verify(made).hash
    assert not verify(tmp_path).damaged
    states = [statistics(folder, extractor()).state() for folder in (tmp_path, made)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


@pytest.mark.parametrize("rest", ["", '{"file": "unit-0', "nonsense\n"])
def test_cut_off_lines_do_not_count_and_do_no_harm(made: Path, tmp_path: Path, rest: str) -> None:
    generate_images(base(), tmp_path)
    journal = tmp_path / "journal-0.jsonl"
    *lines, _ = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines) + rest)
    assert verify(tmp_path).missing == [5]
    assert generate_images(base(), tmp_path).made == 1
    assert verify(tmp_path).hash == verify(made).hash


def test_recomputing_finds_what_checksums_cannot(tmp_path: Path) -> None:
    """Files of other weights under the same fingerprint are whole, but not of this run."""
    generate_images(base(nfe=3), tmp_path)
    assert verify(tmp_path, recompute=6, run=base()).ok
    other = base()
    other.problem.denoiser._inner.means += 0.1  # type: ignore[attr-defined]
    found = verify(tmp_path, recompute=2, run=other)
    assert not found.ok
    assert found.differing == found.recomputed
    assert len(found.differing) == 2
    with pytest.raises(ValueError, match="other settings"):
        verify(tmp_path, recompute=1, run=base(nfe=4))
    with pytest.raises(ValueError, match="needs run="):
        verify(tmp_path, recompute=1)


def test_nothing_is_verified_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing was generated there"):
        verify(tmp_path)


def test_one_rank_is_one_process(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path)
    with shards.locked(0):
        with pytest.raises(ValueError, match="another process is at work"):
            generate_images(base(), tmp_path)
        assert generate_images(base(), tmp_path, rank=1, world=2).made == 3
    assert generate_images(base(), tmp_path).made == 3


def test_an_error_keeps_what_is_finished(tmp_path: Path) -> None:
    run = base(keep="none")
    calls = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_images(run, tmp_path, progress=stop)
    assert calls == [(0, 6), (1, 6), (2, 6)]
    assert generate_images(run, tmp_path).reused == 2
