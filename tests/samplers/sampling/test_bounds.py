"""Numbers of any size: each is refused at once, in one line with its limit, or works."""

import time
import tracemalloc
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import typer
from command_line import call, tree
from generation_runs import small_run

from fewstep import Euler
from fewstep.eval.cli.app import app
from fewstep.eval.common.limits import MAX_SAMPLES
from fewstep.samplers import build_plan
from fewstep.schedules import Flow, discrete_vp
from fewstep.schedules.limits import MAX_CALLS, MAX_TRAIN_TIMES

BLOBS = f"{Path(__file__).parents[2] / 'support/generation_runs.py'}:blobs"
WEIGHTS = Path(__file__).parents[3] / "models/weights/fashion.safetensors"
PIXELS = ("--extractor", "pixels:1x4x4")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# Runs of each command that has numbers, as short as they can be; {} is a folder with data.
RUNS: dict[str, tuple[str, ...]] = {
    "sample": ("--out", "{}/a.png", "--n", "1", "--nfe", "1"),
    "plan": ("ddim",),
    "overhead": (),
    "bench": ("-m", "mix8", "-s", "ddim", "--nfe", "2", "--n", "4", "--dry-run"),
    "tune": ("-m", "mix8", "--nfe", "2", "-o", "{}/m.json"),
    "gen": ("-m", BLOBS, "-s", "ddim", "--nfe", "2", "--seeds", "0-1", "-o", "{}/g", "--dry-run"),
    "ref": ("{}/images.npy", "-o", "{}/b.npz", *PIXELS),
    "calc": ("{}/images.npy", "--ref", "{}/ref.npz"),
    "verify": ("{}/run", "--recompute", "1"),
}
VALUES = ("999999999999", "100000000", "-1", "0", "nan", "inf", "-inf", "1e300", "9" * 5000)
# Options that hold numbers in a text.
TEXTS = {
    ("bench", "--nfe"): ("100000000", "0", "-1", "5,999999999999", "nan", ""),
    ("gen", "--seeds"): ("0-999999999999", "0-4294967295", "-1", "", "0-9999999,5", "1e3"),
    ("tune", "--noises"): ("999999999999,2,2", "0,2,2", "-1,2,2", "2,2", "nan,2,2"),
    ("sample", "--classes"): ("999999999999", "-1", "nan", ""),
}


def numbers() -> list[tuple[str, str, str]]:
    hints = {
        info.name or info.callback.__name__: get_type_hints(info.callback)
        for info in app.registered_commands
        if info.callback is not None
    }
    found = [
        (name, option.opts[0], value)
        for name, command in COMMANDS.items()
        for option in command.params
        if hints[name].get(option.name) in (int, float, int | None)
        for value in VALUES
    ]
    return found + [(*key, value) for key, values in TEXTS.items() for value in values]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 1)).astype(np.uint8)
    np.save(folder / "images.npy", images)
    assert call("ref", folder / "images.npy", "-o", folder / "ref.npz", *PIXELS) == 0
    seeds = ("--seeds", "0-3", "--unit", "2", "-o", f"{folder}/run", "--device", "cpu")
    assert call("gen", "-m", BLOBS, "-s", "ddim", "--nfe", "2", *seeds) == 0
    return folder


def test_every_command_with_numbers_is_tried() -> None:
    assert {name for name, _, _ in numbers()} == set(RUNS)


@pytest.mark.parametrize(("command", "option", "value"), numbers())
def test_a_number_is_refused_in_one_line_or_works(
    command: str, option: str, value: str, data: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    if command in ("sample", "overhead") and not WEIGHTS.exists():
        pytest.skip("no bundled weights")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    # What a tuning does with the settings that it takes is another test's.
    monkeypatch.setattr("fewstep.eval.cli.tuning.tune_and_report", lambda settings: None)
    own = [word.format(data) for word in RUNS[command]]
    if option in own:
        del own[own.index(option) : own.index(option) + 2]
    begun = time.process_time()
    status = call(command, *own, f"{option}={value}")
    seconds = time.process_time() - begun
    err = capsys.readouterr().err
    if status:
        assert status == 2
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert len(err) < 6000  # with a value of 5,000 digits
    assert seconds < 10  # refusals take milliseconds, and short runs up to a second


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        (("plan", "unipc", "--nfe", "100000000"), f"{MAX_CALLS:,}"),
        (("plan", "restart:intervals=[[1000000000,1,0.1,0.5]]"), f"{MAX_CALLS:,}"),
        (("sample", "--n", "999999999999"), "2,000"),
        (("bench", "--n", "999999999999"), f"{MAX_SAMPLES:,}"),
        (("bench", "--nfe", "100000000"), f"{MAX_CALLS:,}"),
        (("bench", "bomb.yaml"), "anchors (&) and aliases (*) are not taken"),
        (("bench", "large.yaml"), "larger than 1,048,576 bytes"),
        (("bench", "deep.yaml"), "nested more than 20 times"),
        (("gen", "-m", BLOBS, "-s", "ddim", "--nfe", "2", "-o", "x", "--seeds", "0-4294967295"),
         f"{MAX_SAMPLES:,}"),
        (("gen", "-m", BLOBS, "-s", "ddim", "--nfe", "100000000", "-o", "x"), f"{MAX_CALLS:,}"),
        (("tune", "--nfe", "100000000", "-o", "x.json"), "100"),
        (("tune", "--nfe", "5", "--noises", "999999999999,2,2", "-o", "x.json"), "100,000"),
        (("overhead", "--repeats", "100000000"), "10,000"),
        (("plan", "unipc:disable_corrector=" + "[" * 100_000), "is not a number"),
        (("sample", "-g", "(" * 100_000), "at most 4,000 characters"),
    ],
)  # fmt: skip
def test_what_is_too_much_costs_nothing(
    arguments: tuple[str, ...], limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if arguments[0] in ("sample", "tune") and not WEIGHTS.exists():
        pytest.skip("no bundled weights")
    monkeypatch.chdir(tmp_path)
    Path("bomb.yaml").write_text(BOMB)
    Path("large.yaml").write_text("#" * 2**21)
    Path("deep.yaml").write_text("a: " + "[" * 10_000)
    assert len(BOMB) < 500  # bytes, for 10 million entries
    call(*arguments)  # what a command imports is no part of it
    before = tree(tmp_path)
    capsys.readouterr()
    tracemalloc.start()
    begun = time.process_time()
    status = call(*arguments)
    seconds, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert limit in line
    assert seconds < 2  # less than .3 on an idle machine
    assert peak < 2**25  # 12 MiB where a model is loaded first; what was asked for takes gigabytes
    assert tree(tmp_path) == before


def test_limits_are_those_of_python_too() -> None:
    process = discrete_vp()
    for call_ in (
        lambda: build_plan("ddim", process, MAX_CALLS + 1),
        lambda: Euler().set_timesteps(10**8),
        lambda: Euler(grid="karras").set_timesteps(10**8),
        lambda: Euler(grid="diffusers").set_timesteps(10**8),
    ):
        with pytest.raises(ValueError, match="at most 4,000"):
            call_()
    for make in (discrete_vp, Flow):
        for wrong in (0, -1, MAX_TRAIN_TIMES + 1, 10**12, 2.5, True, float("nan")):
            with pytest.raises(ValueError, match="num_train_timesteps must be a whole number"):
                make(num_train_timesteps=wrong)
    with pytest.raises(ValueError, match="num_train_timesteps must be a whole number"):
        Euler(num_train_timesteps=0)
    with pytest.raises(ValueError, match="unit_size, the samples of a batch"):
        small_run(unit_size=10**6)
    assert build_plan("ddim", process, MAX_CALLS).calls == MAX_CALLS
