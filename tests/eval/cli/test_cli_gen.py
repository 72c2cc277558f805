"""``fewstep gen``: what it makes, goes on with, refuses, and tells beforehand."""

import errno
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from launchers import launch

from fewstep.eval import cli
from fewstep.eval.common.amounts import bytes_text, seconds_text
from fewstep.eval.generate import estimate as gen_estimate
from fewstep.eval.generate import recipe
from fewstep.eval.generate.collected import statistics
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.recipe import Recipe, run_from_folder
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.verification import verify
from fewstep.eval.networks import inception_weights
from fewstep.eval.networks.families import load_extractor
from fewstep.eval.networks.inception_weights import VARIABLE
from fewstep.samplers import build_plan
from fewstep.schedules import discrete_vp

BLOBS = f"{Path(__file__).parents[2] / 'support/generation_runs.py'}:blobs"
SMALL = ("--model", BLOBS, "-s", "euler_a", "--nfe", "3", "--seeds", "100-121", "--unit", "4",
         "-g", "icg:1.4", "--extractor", "pixels:1x4x4", "--device", "cpu")  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def gen(*arguments: str) -> int:
    """Exit status of ``fewstep gen``."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["gen", *arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def instead(*changes: str) -> tuple[str, ...]:
    """``SMALL`` with these options in the place of its own."""
    options = {**dict(zip(SMALL[::2], SMALL[1::2], strict=True)),
               **dict(zip(changes[::2], changes[1::2], strict=True))}  # fmt: skip
    return tuple(word for option in options.items() for word in option)


def small(**changes: Any) -> Recipe:
    made: dict[str, Any] = {
        "model": BLOBS, "sampler": "euler_a", "nfe": 3, "seeds": "100-121", "unit": 4,
        "guidance": "icg:1.4", "extractor": "pixels:1x4x4",
    }  # fmt: skip
    return Recipe(**{**made, **changes})


def test_it_makes_what_python_makes(capsys: pytest.CaptureFixture[str]) -> None:
    generate_images(small().build("cpu"), "python")
    assert gen(*SMALL, "-o", "cli") == 0
    expected = verify("python").hash
    assert verify("cli").hash == expected is not None
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "reused 0 units, made 6"
    assert re.match(r"spent so far, over all processes: .*network 0\.\d s", out.splitlines()[1])
    assert out.splitlines()[-2] == f"cli: 22 samples, sha256 {expected}"
    assert out.splitlines()[-1].startswith("next: fewstep calc cli ")
    assert err == ""  # no bar where there is no terminal


def test_the_same_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    run = small().build("cpu")
    generate_images(run, "whole")
    generate_images(run, "run", rank=1, world=2)
    next(Path("run").glob("unit-000003*")).unlink()
    assert gen(*SMALL, "-o", "run") == 0
    out = capsys.readouterr().out
    assert out.startswith("reused 2 units, made 4, 1 damaged file made again\n")
    assert verify("run").hash == verify("whole").hash


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert gen(*SMALL, "-o", "run", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert verify("run").ok


def test_a_dry_run_tells_and_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert gen(*SMALL, "-o", "below/run", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "samples: 22 in 6 units, 0 of them there"
    assert lines[1] == "network: 3 calls, 6 rows a sample"
    assert [line.partition(":")[0] for line in lines[2:]] == ["disk", "memory", "time"]
    assert lines[-1].endswith("s (from calls of one unit)")
    assert not list(Path().iterdir())
    generate_images(small().build("cpu"), "run", rank=0, world=2)
    assert gen(*SMALL, "-o", "run", "--dry-run") == 0
    assert "in 6 units, 3 of them there" in capsys.readouterr().out
    assert len(list(Path("run").glob("unit-*"))) == 3


@pytest.mark.parametrize("keep", ["images", "features", "none"])
def test_the_estimate_of_disk_holds(keep: Any) -> None:
    run = small(keep=keep, seeds="0-999", unit=10, nfe=1, guidance="none").build("cpu")
    expected = gen_estimate.estimate(run, "run").disk
    generate_images(run, "run")
    found = sum(path.stat().st_size for path in Path("run").iterdir())
    assert found == pytest.approx(expected, rel=0.1)  # names and numbers differ in length


@pytest.mark.parametrize("patience", [20.0, 0.0])
def test_a_dry_run_makes_a_few_calls_whatever_is_asked_for(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one sample where a unit's calls would take long; of a unit, too, where they do not."""
    run = small(nfe=4000, seeds="0-999999", guidance="icg:1.4|interval:0.3,2").build("cpu")
    calls: list[int] = []
    answer = type(run.problem.denoiser).__call__

    def counted(self: Any, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        calls.append(len(x))
        return answer(self, x, *rest, **more)

    monkeypatch.setattr(type(run.problem.denoiser), "__call__", counted)
    monkeypatch.setattr(gen_estimate, "PATIENCE", patience)
    begun = time.perf_counter()
    found = gen_estimate.estimate(run, "run", world=4)
    assert time.perf_counter() - begun < 2  # of 12 calls of a table of 16 images
    # Two at the start and on each side of either edge; with guidance each has a second row.
    assert len(calls) == (6 if patience == 0 else 12)
    assert max(calls) == (2 if patience == 0 else 8)
    assert found.whole == (patience > 0)
    assert (found.calls, found.rows) == (4000, 8000)
    assert ("at most" in found.lines(Path("run"))[-1]) == (patience == 0)
    assert "on 4 processes" in found.lines(Path("run"))[-1]


def test_times_and_sizes_read_well() -> None:
    assert [seconds_text(s) for s in (0.04, 59, 61, 3599, 7260)] == [
        "0.0 s", "59.0 s", "1 min", "1 h 0 min", "2 h 1 min",
    ]  # fmt: skip
    assert [bytes_text(b) for b in (7, 2048, 5 * 2**20, 3 * 2**40)] == [
        "7 B", "2 KiB", "5 MiB", "3072.0 GiB",
    ]  # fmt: skip


def test_a_folder_tells_how_to_go_on() -> None:
    """Whatever is kept, units that are made again by the folder alone are the same."""
    for keep in ("images", "features", "none"):
        assert gen(*SMALL, "-o", keep, "--keep", keep) == 0
        run = run_from_folder(keep, "cpu")
        assert verify(keep, recompute=3, run=run).ok
        assert generate_images(run, keep).reused == 6
    stored = ShardFolder("images").options()
    assert stored == small().options()
    assert Recipe(**stored) == small()


def test_a_saved_plan_is_kept_whole() -> None:
    build_plan("unipc:order=2", discrete_vp("linear"), 5).save("mine.json")
    arguments = ("--model", BLOBS, "-s", "mine.json", "--seeds", "0-5", "-o", "run")
    assert gen(*arguments) == 0
    assert gen(*arguments, "--nfe", "6") == 2  # the plan makes five calls
    Path("mine.json").unlink()
    assert verify("run", recompute=1, run=run_from_folder("run")).ok
    assert ShardFolder("run").config()["nfe"] == 5


def test_python_runs_are_described_as_far_as_they_can_be() -> None:
    plan = build_plan("heun", discrete_vp("linear"), 4)
    run = small(sampler=plan.table(), nfe=4).build("cpu")
    found = Recipe.of(run)
    assert found == small(sampler=plan.table(), nfe=4, model="blobs")
    generate_images(run, "run")
    with pytest.raises(ValueError, match="unknown problem 'blobs'"):
        run_from_folder("run")  # it was given to python as an object


def test_prompts_are_kept_as_texts() -> None:
    """The file may change or go: the folder holds its words."""
    pytest.importorskip("transformers")
    tiny_pipelines.stable_diffusion().save_pretrained("pipeline")
    Path("words.txt").write_text("a b\nc\n")
    arguments = ("-m", "pipeline", "-s", "unipc", "--nfe", "2", "--seeds", "0-2", "--unit", "2")
    assert gen(*arguments, "--prompts", "words.txt", "-g", "cfg:2", "-o", "run") == 0
    Path("words.txt").write_text("other")
    assert gen(*arguments, "--prompts", "words.txt", "-g", "cfg:2", "-o", "run") == 2
    assert verify("run", recompute=2, run=run_from_folder("run")).ok
    config = ShardFolder("run").config()
    assert config["num_classes"] == 2
    assert config["image_shape"] != config["shape"]  # it decodes latents
    Path("words.txt").unlink()
    assert gen(*arguments, "--prompts", "words.txt", "-o", "other") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--seeds", "5-1"), "seeds are numbers"),
        (("--seeds", "1,1"), "a seed is there twice"),
        (("--unit", "0"), "unit_size must be at least 1"),
        (("--keep", "all"), "keep must be one of"),
        (("--classes", "all"), "classes must be one of"),
        (("-s", "nosuch"), "unknown sampler 'nosuch'"),
        (("-s", "gone.json"), "no plan at gone.json"),
        (("--model", "nosuch"), "unknown problem 'nosuch'"),
        (("--extractor", "nosuch"), "unknown extractor 'nosuch'"),
        (("--weights", "a.pth"), "pixels has no weights of its own"),
        (("--dtype", "float16"), "decides on its own dtype"),
        (("--prompts", "gone.txt"), "No such file or directory: gone.txt"),
        (("--device", "nosuch"), "device 'nosuch' cannot be used"),
        (("-g", "nosuch"), "nosuch"),
    ],
)
def test_mistakes_are_one_line(
    change: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gen(*instead(*change), "-o", "run") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not Path("run").exists()


def test_weights_need_an_extractor_and_a_spec_needs_calls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gen("-s", "unipc", "--nfe", "3", "-o", "run", "--weights", "a.pth") == 2
    assert "none was named" in capsys.readouterr().err
    assert gen("-s", "unipc", "-o", "run") == 2
    assert "--nfe is needed with a spec" in capsys.readouterr().err


def test_other_settings_are_refused_with_their_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gen(*SMALL, "-o", "run", "--quiet") == 0
    for more in ((), ("--dry-run",)):
        assert gen(*instead("--nfe", "4"), "-o", "run", *more) == 2
        err = capsys.readouterr().err
        assert "run was made with other settings: nfe: 3 there, 4 now; sigmas[1]: 0." in err
        assert err.count("\n") == 1


def test_a_full_disk_is_told_with_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # names no file

    monkeypatch.setattr(os, "fsync", full)
    assert gen(*SMALL, "-o", "run") == 2
    assert capsys.readouterr().err == (
        "error: cannot be written (No space left on device): run/config.json\n"
    )


def test_the_number_of_threads_is_told_how_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    run = small().build("cpu")
    generate_images(run, "run")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.raises(ValueError, match=r"threads: 1 there, 7 now(.|\n)*OMP_NUM_THREADS=1"):
        generate_images(run, "run")


def test_missing_weights_end_it_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pytorch_fid")

    def offline(url: str, timeout: float) -> None:
        raise OSError("offline")

    def never(*given: Any, **more: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(inception_weights, "urlopen", offline)
    monkeypatch.setattr(recipe, "load_problem", never)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert gen(*instead("--extractor", "inception:edm"), "-o", "run") == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "https://" in err
    assert not Path("run").exists()


def test_an_interrupted_run_says_how_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewstep.eval.generate.generation.generate_units", stop)
    assert gen(*SMALL, "-o", "run") == 130
    assert capsys.readouterr().err == (
        "interrupted; the same command goes on with what is finished\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "world", "keep"), [("torchrun", 2, "images"),
                         ("torchrun", 3, "none"), ("accelerate", 2, "images")])  # fmt: skip
def test_launchers_give_the_same_bits(launcher: str, world: int, keep: str) -> None:
    """The bundled network: its images, and the exact sums of the classifier's features."""
    arguments = ["gen", "-s", "sa", "--nfe", "2", "-g", "cfg:2", "--seeds", "0-49", "--unit", "8",
                 "--keep", keep, "--extractor", "fd-cnn:fashion", "--device", "cpu"]  # fmt: skip
    assert gen(*arguments[1:], "-o", "alone") == 0
    done = launch(launcher, world, "-m", "fewstep", *arguments, "-o", "together")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "reused 0 units, made 7"  # once, and of all
    assert verify("together").hash == verify("alone").hash is not None
    journals = sorted(Path("together").glob("journal-*.jsonl"))
    assert [path.name for path in journals] == [f"journal-{rank}.jsonl" for rank in range(world)]
    judge = load_extractor("fd-cnn:fashion")
    states = [statistics(folder, judge).state() for folder in ("alone", "together")]
    assert states[0]["sums"].dtype == torch.int64
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    logs = [json.loads(Path(f"together/log-{rank}.jsonl").read_text()) for rank in range(world)]
    assert [log["world"] for log in logs] == [world] * world
