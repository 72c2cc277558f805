"""``docs/architecture.md`` is true: its files exist, and the calls that it follows visit them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from traced import trip

import fewstep
from fewstep.eval import main
from fewstep.models import bundled_denoiser

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
FLOORS = ("samplers", "guidance", "models", "schedules", "eval")


def listed(heading: str, number: int = 0) -> list[str]:
    """The files at the beginning of each entry of a list below a heading."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (section,) = [text for text in sections if heading in text.partition("\n")[0]]
    lists = re.split(r"^(?=1\. )", section, flags=re.MULTILINE)[1:]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", lists[number], re.MULTILINE)


def sampled(folder: Path) -> Callable[[], object]:
    denoiser, cond = bundled_denoiser(), torch.tensor([1])
    return lambda: fewstep.sample(denoiser, "unipc", 8, shape=(1, 1, 28, 28), cond=cond)


def planned(folder: Path) -> Callable[[], object]:
    scheduler = fewstep.UniPC.from_config(DDIMScheduler().config)
    return lambda: scheduler.set_timesteps(8)


def stepped(folder: Path) -> Callable[[], object]:
    scheduler = fewstep.UniPC.from_config(DDIMScheduler().config)

    def run() -> None:
        x = torch.ones(1, 4, 8, 8)
        for time in scheduler.timesteps:
            x = scheduler.step(x, time, x).prev_sample

    scheduler.set_timesteps(8)
    run()
    scheduler.set_timesteps(8)
    return run


def benched(folder: Path) -> Callable[[], object]:
    def run(out: str) -> None:
        with pytest.raises(SystemExit):
            main(["bench", "--problem", "mix8", "-s", "unipc", "--nfe", "8", "--n", "8",
                  "--out", str(folder / out)])  # fmt: skip

    run("first")  # which imports what is loaded late
    return lambda: run("second")


TRIPS = {
    "sample": (sampled, "`sample(denoiser", 0),
    "set_timesteps": (planned, "`step()`", 0),
    "step": (stepped, "`step()`", 1),
    "bench": (benched, "`fewstep bench`", 0),
}


@pytest.mark.parametrize("name", TRIPS)
def test_trips_go_where_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files of a list are visited, one after the other, with others in between."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    prepare, heading, number = TRIPS[name]
    files = listed(heading, number)
    went = trip(prepare(tmp_path))
    assert len(files) >= 5
    rest = iter(went)
    assert [file for file in files if file not in rest] == []  # each search goes on from the last


def test_a_step_visits_no_other_file(tmp_path: Path) -> None:
    """All of what runs once a network call is on the page."""
    assert set(trip(stepped(tmp_path))) == set(listed("`step()`", 1))


def test_the_picture_has_every_room() -> None:
    """The diagrams name the folders of the package, those of samplers and of eval, and no other."""
    pictures = "".join(re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL))
    named = re.findall(r"^ *([a-z]+(?:, [a-z]+)*)/?(?:  |$)", pictures, re.MULTILINE)
    rooms = {
        path.parent.name
        for top in ("samplers", "eval")
        for path in (ROOT / top).glob("*/__init__.py")
    }
    assert sorted(name for line in named for name in line.split(", ")) == sorted({*FLOORS, *rooms})
