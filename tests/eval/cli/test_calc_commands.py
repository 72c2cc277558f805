"""``fewstep ref``, ``calc``, ``verify``, ``export`` and ``convert``, as a user calls them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calc_folders import USE, Capture, make_folder
from command_line import call, tree
from generation_runs import SHAPE, small_run

from fewstep.eval.generate.generation import generate_images
from fewstep.eval.metrics.statistics_files import load_npz
from fewstep.eval.networks.extractors import PixelExtractor
from fewstep.eval.reports.lines import LINES, read_runs

folder = pytest.fixture(make_folder)


def scores(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert call("calc", *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_table_tells_all_that_a_number_depends_on(folder: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert call("calc", "a", "--ref", "ref.npz", "--metrics", "fd,kid,prdc,sw2") == 0
    out = capsys.readouterr().out
    extractor = PixelExtractor(SHAPE)
    assert f"extractor pixels:1x4x4, weights {extractor.fingerprint[:8]}" in out
    assert "reference ref.npz, 30 samples, hash " in out
    # On a terminal that is too narrow, titles are whole all the same.
    for metric in ("FD", "KID", "Precision", "Recall", "Coverage"):
        assert f"{metric}-pixels-1x4x4-22" in out
    assert "not comparable with published FID" in out
    assert "sd" not in out


def test_parts_and_sets_are_summed_up(folder: Path, capsys: Capture) -> None:
    assert call("calc", "a", "b", "--ref", "ref.npz") == 0
    assert "mean" in capsys.readouterr().out
    found = scores(capsys, "a", "--ref", "ref.npz", "--repeats", "2")
    values = [part["metrics"]["fd"] for part in found["sets"]]
    summary = found["summary"]["fd"]
    assert summary["values"] == values
    assert summary["min"] == min(values)
    assert summary["mean"] == pytest.approx(np.mean(values), rel=1e-12)  # of two numbers
    assert summary["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert [(part["first"], part["n"]) for part in found["sets"]] == [(0, 11), (11, 11)]
    # The mean over samplers would mean nothing.
    assert "summary" not in scores(capsys, "a", "c", "--ref", "ref.npz")
    assert "summary" in scores(capsys, "a", "b", "--ref", "ref.npz")


def test_the_extractor_is_the_references_own(folder: Path, capsys: Capture) -> None:
    found = scores(capsys, "a", "--ref", "ref.npz")
    assert found["extractor"]["name"] == "pixels:1x4x4"
    assert found["note"] == "not comparable with published FID"
    assert found["ref"]["dataset_hash"] == load_npz("ref.npz").dataset_hash
    # Raw images give the same as their statistics.
    assert scores(capsys, "a", "--ref", "real", *USE)["sets"] == found["sets"]


def test_pairs_need_no_reference(folder: Path, capsys: Capture) -> None:
    assert call("export", "a", "a.zip") == 0
    (pair,) = scores(capsys, "a", "--paired", "a.zip")["paired"]
    assert pair == {"samples": "a", "other": "a.zip", "n": 22, "rmse": 0.0, "psnr": None}
    (pair,) = scores(capsys, "a", "--paired", "c")["paired"]
    assert 20 * np.log10(2 / pair["rmse"]) == pytest.approx(pair["psnr"])
    assert call("calc", "a", "--paired", "b") == 2
    assert "make no pairs: seeds" in capsys.readouterr().err
    assert call("calc", "a", "--paired", "c", "--ref", "ref.npz") == 0
    out = capsys.readouterr().out
    assert "FD-pixels-1x4x4-22" in out
    assert "dB" in out
    assert call("calc", "a") == 2
    assert "give --ref, --paired or both" in capsys.readouterr().err


def test_scores_are_kept_for_reports_and_for_verify(folder: Path, capsys: Capture) -> None:
    found = scores(capsys, "a", "b", "--ref", "ref.npz", "-o", "report")
    (run,) = read_runs(Path("report") / LINES)
    assert [row.metrics for row in run.rows] == [one["metrics"] for one in found["sets"]]
    assert [row.seed for row in run.rows] == [100, 500]
    first = run.rows[0]
    assert (first.sampler, first.nfe, first.calls, first.n) == ("euler_a", 3, 3, 22)
    assert first.rows == 6  # guidance doubles each call, and the filling of a unit is no one's
    assert first.seconds_by["network"] > 0
    assert run.env["extractor"] == found["extractor"]
    assert run.env["ref"] == found["ref"]
    assert run.images
    own = json.loads((folder / "a" / "result.json").read_text())
    assert own["sets"] == found["sets"][:1]
    assert own["ref"] == found["ref"]
    assert call("calc", "a", "--ref", "ref.npz", "--repeats", "2", "-o", "report") == 0
    assert len(read_runs(Path("report") / LINES)) == 2
    assert call("calc", "real", "--ref", "ref.npz", "-o", "report") == 2
    assert "real is none" in capsys.readouterr().err
    assert call("report", "report") == 0
    assert "FD-pixels-1x4x4-11" in Path("report/report.md").read_text()


def test_reports_are_of_one_problem_and_size(folder: Path, capsys: Capture) -> None:
    generate_images(small_run(classes="turn"), folder / "d")
    generate_images(small_run(n=8), folder / "e")
    before = tree(folder)
    for other, reason in (("d", "make no one report: classes uniform and turn"), ("e", "size")):
        assert call("calc", "a", other, "--ref", "ref.npz", "-o", "report") == 2
        assert reason in capsys.readouterr().err
    assert tree(folder) == before


def test_statistics_go_to_edm2_and_back(folder: Path) -> None:
    assert call("convert", "ref.npz", "ref.pkl") == 0
    assert call("convert", "ref.pkl", "again.npz") == 0
    assert call("convert", "ref.npz", "copy.npz") == 0
    first, again, copy = (load_npz(name) for name in ("ref.npz", "again.npz", "copy.npz"))
    for other in (again, copy):
        assert np.array_equal(other.mu, first.mu)
        assert np.array_equal(other.sigma, first.sigma)
        assert other.n == first.n
    assert copy.dataset_hash == first.dataset_hash
    with np.load("copy.npz") as arrays:
        assert "features" in arrays.files
    assert call("convert", "ref.pkl", "x.npz", "--metric", "fd_dinov2") == 2


def test_the_same_samples_twice_are_no_repeats(folder: Path, capsys: Capture) -> None:
    shutil.copytree("a", "copy")
    capsys.readouterr()
    assert call("calc", "a", "copy", "--ref", "ref.npz") == 0
    assert "sd" not in capsys.readouterr().out
