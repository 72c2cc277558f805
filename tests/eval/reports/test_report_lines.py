"""``results.jsonl``: what it holds comes back, and everything else is made from it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from report_results import sample_results

from fewstep.eval.common.image_sets import quantised
from fewstep.eval.reports import pictures, report
from fewstep.eval.reports.lines import LINES, append_run, read_runs
from fewstep.eval.reports.report import rebuild, write_report
from fewstep.eval.reports.results import Results, Row
from fewstep.eval.reports.thumbnails import LONGEST, from_thumbnails, to_thumbnails


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    results = sample_results()
    run = append_run(results, tmp_path / LINES, {"nfe": [4, 8]})
    (found,) = read_runs(tmp_path / LINES)
    assert (found.run, found.started) == (run, "2026-01-01")
    assert found.settings == {"nfe": [4, 8]}
    assert (found.env, found.rows) == (results.env, results.rows)
    # Images of 8 bits are kept exactly, and so is their order.
    assert list(found.images) == list(results.images)
    assert all(np.array_equal(found.images[key], results.images[key]) for key in results.images)
    assert found.reference_images.keys() == results.reference_images.keys()


def test_each_line_is_an_object_of_a_kind(tmp_path: Path) -> None:
    append_run(sample_results(guidance=("none",), seeds=(0,)), tmp_path / LINES)
    lines = [json.loads(text) for text in (tmp_path / LINES).read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["run", *["row"] * 4, *["images"] * 5, "end"]
    assert lines[0]["schema"] == 3
    assert len({line["run"] for line in lines}) == 1
    assert (lines[-1]["rows"], lines[-1]["images"]) == (4, 5)
    assert lines[5]["sampler"] is None  # the reference


def test_the_newest_run_is_the_last(tmp_path: Path) -> None:
    first, second = sample_results(), sample_results(samplers=("heun",))
    runs = [append_run(results, tmp_path / LINES) for results in (first, second)]
    assert [results.run for results in read_runs(tmp_path / LINES)] == runs
    rebuild(tmp_path)
    assert "heun" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("lost", [1, 60, 3000])
def test_a_run_that_was_cut_off_is_left_out(tmp_path: Path, lost: int) -> None:
    path = tmp_path / LINES
    kept = append_run(sample_results(), path)
    append_run(sample_results(), path)
    path.write_bytes(path.read_bytes()[: -lost - 1])  # the last byte is the end of a line
    with pytest.warns(UserWarning, match="cut off before its end"):
        assert [results.run for results in read_runs(path)] == [kept]
    # The next run begins on a line of its own, and nothing newer is missing then.
    last = append_run(sample_results(), path)
    assert [results.run for results in read_runs(path)] == [kept, last]


def test_files_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    path = tmp_path / LINES
    with pytest.raises(FileNotFoundError, match=r"no results.jsonl in .*no benchmark"):
        read_runs(path)
    append_run(sample_results(), path)
    whole = path.read_text()
    lines = whole.splitlines()
    path.write_text("\n".join(lines[:3] + lines[4:]))
    with pytest.raises(ValueError, match="has 15 rows and 10 sets of images of 16 and 10"):
        read_runs(path)
    path.write_text(whole.replace('"schema": 3', '"schema": 4'))
    with pytest.raises(ValueError, match="schema 4; known: 3"):
        read_runs(path)
    path.write_text(whole.replace('"sampler": "ddim", "nfe"', '"solver": "ddim", "nfe"', 1))
    with pytest.raises(ValueError, match="unknown field 'solver'"):
        read_runs(path)
    path.write_text("\n".join(lines[1:]))
    with pytest.raises(ValueError, match="line 1: kind 'row' of run"):
        read_runs(path)


def test_a_report_is_made_again_to_the_byte(tmp_path: Path) -> None:
    written = write_report(sample_results(), tmp_path)
    before = contents(tmp_path)
    assert {path.name for path in written} == before.keys()
    assert {"results.json", "results.csv", "report.md", "report.html", "rmse-0-none.png",
            "fd_fashion-rows.png", "samples-nfe04-1-cfg-2.png"} < before.keys()  # fmt: skip
    for path in written:
        if path.name != LINES:
            path.unlink()
    rebuild(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_another_process_makes_the_same_bytes(tmp_path: Path) -> None:
    """Nothing depends on the hashes of texts, the time, or what was drawn before."""
    write_report(sample_results(guidance=("none",)), tmp_path)
    before = contents(tmp_path)
    for path in tmp_path.iterdir():
        if path.name != LINES:
            path.unlink()
    subprocess.run(
        [sys.executable, "-m", "fewstep", "report", str(tmp_path)],
        env=os.environ | {"PYTHONHASHSEED": "12345"}, check=True, capture_output=True,
    )  # fmt: skip
    assert contents(tmp_path) == before


def test_nothing_is_left_of_a_report_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(sample_results(), tmp_path)
    before = contents(tmp_path)

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no ink")

    for module, name in ((pictures, "draw_curves"), (report, "page")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(RuntimeError, match="no ink"):
                write_report(sample_results(samplers=("heun",)), tmp_path)
            assert contents(tmp_path) == before


def test_results_json_is_of_schema_2_and_holds_what_there_is() -> None:
    plain = Row("ddim", 4, 4, 4, 0, 8, "mix8", "none", {"rmse": 0.1}, 1.0)
    results = Results({"fewstep": "0", "torch": "2", "device": "cpu", "threads": 1}, [plain])
    assert list(json.loads(results.to_json())["rows"][0])[-2:] == ["metrics", "seconds"]
    results = sample_results()
    table = json.loads(results.to_json())
    assert list(table) == ["schema", "env", "rows"]
    assert table["schema"] == 2
    assert table["rows"][0]["seconds_by"]["network"] > 0
    assert Results.from_json(results.to_json()).rows == results.rows


def test_csv_has_every_row_and_phase() -> None:
    results = sample_results(seeds=(0, 1, 2))
    lines = list(csv.DictReader(results.to_csv().splitlines()))
    assert len(lines) == len(results.rows) == 24
    assert [line["seed"] for line in lines[:3]] == ["0", "1", "2"]
    assert float(lines[0]["seconds_network"]) == pytest.approx(0.9 * float(lines[0]["seconds"]))
    assert int(lines[0]["peak_memory"]) == results.rows[0].peak_memory


def test_thumbnails_are_small_and_colour_survives() -> None:
    images = torch.linspace(-1, 1, 2 * 3 * 200 * 300).reshape(2, 3, 200, 300)
    found = from_thumbnails(to_thumbnails(images))
    assert found.shape == (2, 3, 85, LONGEST)
    # Averages of the same pixels, rounded to 8 bits: half a level of 2/255.
    assert abs(found.mean() - float(images.mean())) < 1 / 255
    diverged = torch.full((1, 1, 4, 4), float("nan"))
    assert np.isfinite(from_thumbnails(to_thumbnails(diverged))).all()


def test_thumbnails_are_rounded_as_samples_are_kept() -> None:
    images = torch.linspace(-1.1, 1.1, 2 * 3 * 100 * 120).reshape(2, 3, 100, 120)
    images.view(-1)[:256] = (torch.arange(256) + 0.0) / 127.5 - 1  # what 8 bits can hold
    pixels = (from_thumbnails(to_thumbnails(images)) + 1) * 127.5
    assert np.array_equal(pixels.round(), quantised(images).numpy())


def test_colour_images_and_negative_distances_are_drawn(tmp_path: Path) -> None:
    results = sample_results(samplers=("ddim",), guidance=("none",), problem="mine")
    for found in (results.images, results.reference_images):
        found |= {key: torch.rand(2, 3, 200, 300) * 2 - 1 for key in found}
    for i, row in enumerate(results.rows):
        row.metrics["kid"] = 0.001 * (i - 1)  # unbiased, so below zero and zero too
    write_report(results, tmp_path)
    for name in ("kid.png", "samples-nfe04.png"):
        assert (tmp_path / name).stat().st_size > 5000
        assert f"({name})" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("change", ["a list", "a field less", "an image that is none"])
def test_what_is_wrong_names_the_file_and_the_line(change: str, tmp_path: Path) -> None:
    path = tmp_path / LINES
    append_run(sample_results(guidance=("none",), seeds=(0,)), path)
    good = path.read_text().splitlines()
    for number, text in enumerate(good, 1):
        line = json.loads(text)
        if change == "a list":
            line = [line]
        elif change == "a field less" and line["kind"] in ("run", "row"):
            del line["started" if line["kind"] == "run" else "calls"]
        elif change == "an image that is none" and line["kind"] == "images":
            line["png"] = "bm8gaW1hZ2U="
        else:
            continue
        path.write_text("\n".join([*good[: number - 1], json.dumps(line), *good[number:]]) + "\n")
        with pytest.raises(ValueError, match=rf"results\.jsonl, line {number}: ") as caught:
            read_runs(path)
        assert "\n" not in str(caught.value)
