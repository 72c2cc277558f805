"""The page and the table of a tuning: all figures, from one file, in plain words."""

import base64
import math
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from markupsafe import escape
from PIL import Image
from rich.console import Console

from fewstep.eval.problems import Problem
from fewstep.eval.tune.judge import Error
from fewstep.eval.tune.plots import (
    curve_plot,
    error_grid,
    error_plot,
    error_rows,
    plans_png,
)
from fewstep.eval.tune.report import error_table, page, page_of
from fewstep.eval.tune.run import SHOWN, run_tune
from fewstep.eval.tune.settings import TuneSettings
from fewstep.eval.tune.tuning import Tuning
from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers.tuning.polish import Entry
from fewstep.schedules import discrete_vp

NOISES = (24, 24, 32)


def images() -> Problem:
    """Four images of 4x4 pixels with some noise, under a name that HTML must not take for a tag."""
    process = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
    means = torch.linspace(-9, 9, 64, dtype=torch.float64).sin().view(4, 1, 4, 4)
    denoiser = MixtureDenoiser(process, means, 0.2)
    return Problem("<images>", denoiser, denoiser.shape, "images")


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("fewstep.eval.tune.setup.load_problem", lambda *args, **kwargs: images())
        return run_tune(TuneSettings(problem="x", nfe=4, noises=NOISES, teleport=False))


@pytest.fixture(scope="module")
def text(tuning: Tuning) -> str:
    return page(tuning, Path("m4.json"))


def test_page_is_one_file_that_asks_for_nothing(text: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "default-src 'none'" in text
    assert len(re.findall("<script", text)) == 1
    assert "prefers-color-scheme: dark" in text
    assert "<images>" not in text
    assert "&lt;images&gt;, no guidance, 4 calls" in text


def test_page_holds_every_error(tuning: Tuning, text: str) -> None:
    for name, found in error_rows(tuning):
        assert name in text
        assert all(f'data-n="{error.rms}"' in text for error in found.values())
        assert all(f'data-n="{error.median}"' in text for error in found.values())
    assert f'data-n="{tuning.teacher}"' in text
    for name in ("errors", "curve", "plans", "seeds", "settings"):
        assert f'<section id="{name}">' in text
        assert f'href="#{name}"' in text
    assert f"Errors on {NOISES[2]} noises that took no part" in text
    assert tuning.found.spec in text


def test_pictures_are_of_the_same_noises(tuning: Tuning, text: str) -> None:
    """Rows of images: the tuned one is nearer to the teacher's than the start's."""
    assert len(tuning.pictures) == 4
    shown = dict(tuning.pictures)
    assert all(images.shape == (SHOWN, 1, 4, 4) for images in shown.values())
    start, tuned, _, teacher = shown.values()
    assert (tuned - teacher).norm() < (start - teacher).norm()
    found = re.findall(r'alt="Samples of [^"]*" src="data:image/png;base64,([^"]+)"', text)
    assert len(found) == 4
    image = Image.open(BytesIO(base64.b64decode(found[0])))
    assert image.size == (SHOWN * 6 - 2, 4)  # two clear pixels between images


def test_rows_are_sorted_with_the_tuned_one_first(tuning: Tuning) -> None:
    rows = error_rows(tuning)
    assert rows[0] == ("tuned", {4: tuning.error})
    errors = [found[4].rms for _, found in rows[1:] if 4 in found]
    assert errors == sorted(errors)
    assert f"{tuning.found.spec} (start)" in [name for name, _ in rows]
    best = tuning.best(4)
    assert best is not None
    assert best[1].rms == errors[0]


def test_table_for_the_terminal_has_the_same_numbers(tuning: Tuning) -> None:
    grid = error_grid(tuning)
    assert grid.heads == ["sampler", "4 calls", "8 calls", "median, 4 calls", "median, 8 calls"]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(error_table(tuning))
    printed = console.export_text()
    for row in grid.rows:
        assert all(entry.text in printed for entry in row)


def test_curve_has_a_point_for_each_step(tuning: Tuning) -> None:
    curve = curve_plot(tuning)
    assert curve is not None
    assert [len(line.marks) for line in curve.curves] == [len(tuning.found.history)] * 2
    short = replace(tuning, found=replace(tuning.found, history=(Entry(1.0, 1.0),)))
    assert curve_plot(short) is None
    assert 'id="curve"' not in page(short, Path("m4.json"))


def test_plot_leaves_nothing_out(tuning: Tuning) -> None:
    plot = error_plot(tuning)
    assert [curve.name for curve in plot.curves] == [name for name, _ in error_rows(tuning)]
    assert [tick.text for tick in plot.x_ticks] == ["4", "8"]


def test_weights_are_drawn_where_there_are_any(tuning: Tuning) -> None:
    image = Image.open(BytesIO(base64.b64decode(plans_png(tuning))))
    assert min(image.size) > 300
    kept = replace(tuning, found=replace(tuning.found, plan=tuning.found.start, improved=False))
    assert plans_png(kept) == ""
    assert 'id="plans"' not in page(kept, Path("m4.json"))


def test_notes_say_what_figures_do_not(tuning: Tuning) -> None:
    assert tuning.notes() == []
    coarse = replace(tuning, teacher=tuning.error.rms / 4)
    (note,) = coarse.notes()
    assert "more than a fifth" in note
    assert escape(note) in page(coarse, Path("m4.json"))
    worse = replace(tuning, error=Error(2 * tuning.before.rms, 1.0))
    assert "no better than the start" in worse.notes()[0]
    kept = replace(tuning, found=replace(tuning.found, plan=tuning.found.start, improved=False))
    assert "nothing was gained" in kept.notes()[0]
    assert "tuned (the start, nothing was gained)" in page(kept, Path("m4.json"))


def test_summary_tells_both_ratios(tuning: Tuning) -> None:
    first, second = tuning.summary()
    for n in (4, 8):
        best = tuning.best(n)
        assert best is not None
        ratio = tuning.error.rms / best[1].rms
        assert f"{ratio:.2f} of the best fixed sampler at {n} ({best[0]})" in first
    assert f"{tuning.found.select / tuning.found.tune:.2f}" in second


def test_a_solver_that_diverges_is_left_out(tuning: Tuning) -> None:
    """JSON has no infinity, and no table is sorted by it."""
    assert all(
        math.isfinite(error.rms) for found in tuning.fixed.values() for error in found.values()
    )


def test_where_the_page_goes() -> None:
    assert page_of(Path("a/m5.json")) == Path("a/m5.html")
    assert page_of(Path("a/m5")) == Path("a/m5/report.html")
