"""Which class and which seeds a report shows, and what may stand in one table of it."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from calc_folders import Capture, make_folder
from command_line import call
from generation_runs import small_run
from report_results import NAMES, sample_results

from fewstep.eval.common.class_names import class_names
from fewstep.eval.generate.collected import unit_tensors
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.problems.prompts import prompt_lines
from fewstep.eval.reports.html import page
from fewstep.eval.reports.lines import LINES, read_runs
from fewstep.eval.reports.merging import merged
from fewstep.eval.reports.parts import SEPARATE, parts
from fewstep.eval.reports.report import write_report
from fewstep.eval.reports.results import Results, Row
from fewstep.models.data import CLASS_NAMES
from fewstep.samplers import build_plan
from fewstep.schedules import discrete_vp

folder = pytest.fixture(make_folder)
SAME = "The same starting noise down each column"


def newest(path: str = "report") -> Results:
    return read_runs(Path(path) / LINES)[-1]


def test_names_are_those_of_the_labels_that_units_hold(folder: Path) -> None:
    """Classes are drawn from the seeds, so that they do not come in turn."""
    assert call("calc", "a", "--ref", "ref.npz", "-o", "report") == 0
    labels = torch.cat([tensors["labels"] for tensors in unit_tensors("a")]).tolist()
    assert labels[:12] != [i % 2 for i in range(12)]
    ((key, names),) = newest().labels.items()
    assert names == tuple(f"class {label}" for label in labels[:12])
    assert key == ("icg:1.4", "euler_a", 3, "100-121")
    shown = re.findall(r'<span title="(.*?)">', Path("report/report.html").read_text())
    assert tuple(shown) == names


def test_names_of_classes() -> None:
    assert class_names("fashion", [9, 0]) == [CLASS_NAMES[9], CLASS_NAMES[0]]
    # A user's model may be called alike, and have classes of its own.
    assert class_names("my_fashion.py:load", [7]) == ["class 7"]
    assert class_names("org/pipe", [1, 0], ["a cat", "a dog"]) == ["a dog", "a cat"]
    (cut,) = class_names("org/pipe", [0], ["a photograph of an astronaut on a horse"])
    assert cut.startswith("a photograph of")
    assert len(cut) == 24
    assert prompt_lines("\ufeffa cat\n\n  a dog \n") == ["a cat", "a dog"]


def test_pictures_without_known_classes_have_no_names() -> None:
    results = sample_results(samplers=("ddim",), guidance=("none",))
    text = page(results)
    assert all(f'<span title="{name}">' in text for name in NAMES)
    results.labels = {}  # as of models without classes, and reports from before they were kept
    assert "<span title=" not in page(results)


def test_pictures_of_other_classes_stand_apart() -> None:
    """Names are of a whole column."""
    results = sample_results(guidance=("none",))
    key = ("none", "ddim", 4, "")
    results.labels[key] = tuple(reversed(NAMES))
    assert page(results).count('<span class="names"') == 3  # at 8 calls both are alike


def test_unequal_seeds_stand_in_tables_of_their_own(folder: Path) -> None:
    generate_images(small_run(sampler="ddim"), folder / "d")
    assert call("calc", "a", "b", "d", "--ref", "ref.npz", "-o", "report") == 0
    shown = parts(newest())
    assert [[row.starts for row in part.rows] for part in shown] == [
        ["100-121", "100-121"], ["500-521"],
    ]  # fmt: skip
    text = Path("report/report.html").read_text()
    assert SEPARATE in text
    assert "Seeds 100-121" in text
    assert "Seeds 500-521" in text
    # euler_a and ddim in one picture, and euler_a of other seeds in another.
    assert [text.count(f"Samples of {name}") for name in ("euler_a", "ddim")] == [2, 1]
    assert text.count(SAME) == 1
    assert "Seeds 500-521" in Path("report/report.md").read_text()


def test_equal_seeds_and_repeats_share_a_table(folder: Path) -> None:
    generate_images(small_run(sampler="ddim"), folder / "d")
    generate_images(small_run(sampler="ddim", seeds=range(500, 522)), folder / "e")
    assert call("calc", "a", "b", "d", "e", "--ref", "ref.npz", "-o", "report") == 0
    text = Path("report/report.html").read_text()
    assert len(parts(newest())) == 1
    assert SEPARATE not in text
    assert "standard deviation over repeats" in text
    assert text.count(SAME) == 2  # a picture of each set of seeds


def test_old_reports_of_folders_claim_no_common_noise() -> None:
    """They did not keep the seeds, and may show any."""
    results = sample_results(guidance=("none",))
    assert SAME in page(results)
    results.settings = {"calc": {}}
    assert SAME not in page(results)
    results.settings = {"merged": [{"settings": {"calc": {}}}]}
    assert SAME not in page(results)


def test_merging_goes_by_all_seeds() -> None:
    """Runs of the seeds 0-63 and 0-31,100-131 begin with the same one."""
    first, other = sample_results(samplers=("ddim",)), sample_results(samplers=("unipc",))
    first.rows = [replace(row, seed=0, seeds="0-63") for row in first.rows]
    other.rows = [replace(row, seed=0, seeds="0-31,100-131") for row in other.rows]
    first.settings = other.settings = {"calc": {}}
    with pytest.raises(ValueError, match=r"seeds \['0-63'\] in the one and \['0-31,100-131'\]"):
        merged({"a": first, "b": other})


def test_samples_that_are_there_twice_are_no_repeats(folder: Path, capsys: Capture) -> None:
    shutil.copytree("a", "copy")
    generate_images(small_run(seeds=range(110, 132)), folder / "overlapping")
    for other, seeds in (("copy", "100-121"), ("overlapping", "110-121")):
        capsys.readouterr()
        assert call("calc", "a", other, "--ref", "ref.npz", "-o", "report") == 2
        err = capsys.readouterr().err
        assert f"a and {other} hold samples of the same sampler and the same seeds, {seeds}" in err
        assert not (Path("report") / LINES).exists()
        assert call("calc", "a", other, "--ref", "ref.npz") == 0
        assert "(min " not in capsys.readouterr().out


def test_images_of_unknown_origin_are_no_repeats(folder: Path, capsys: Capture) -> None:
    for name in ("a", "c"):
        assert call("export", name, f"{name}.zip") == 0
    capsys.readouterr()
    assert call("calc", "a.zip", "c.zip", "--ref", "ref.npz") == 0
    assert "(min " not in capsys.readouterr().out
    assert call("calc", "a.zip", "--ref", "ref.npz", "--repeats", "2") == 0
    assert "(min " in capsys.readouterr().out


def test_two_plans_of_one_name_are_told_apart(folder: Path) -> None:
    """Tuned plans are called after their calls, for example."""
    process = discrete_vp("linear")
    for i, spec in enumerate(("ddim", "ipndm")):
        plan = replace(build_plan(spec, process, 3), name="mine")
        generate_images(small_run(sampler=plan, guidance="none"), folder / f"p{i}")
    assert call("calc", "p0", "p1", "--ref", "ref.npz", "-o", "report") == 0
    assert [row.sampler for row in newest().rows] == ["mine (p0)", "mine (p1)"]


def test_runs_made_at_different_times_show_no_seconds_beside_scores(tmp_path: Path) -> None:
    results = sample_results(samplers=("ddim",), guidance=("none",))
    write_report(results, tmp_path / "once")
    assert "time/image" not in _front(tmp_path / "once")  # nobody knows by how much it varies
    results.rows = [replace(row, seconds_each=[0.01, 0.02]) for row in results.rows]
    write_report(results, tmp_path / "bench")
    assert "| time/image |" in _front(tmp_path / "bench")
    assert "(10 ms to 20 ms)" in (tmp_path / "bench" / "report.md").read_text()
    for settings in ({"calc": {}}, {"merged": []}):
        results.settings = settings
        write_report(results, tmp_path / "apart")
        assert "time/image" not in _front(tmp_path / "apart")
        text = (tmp_path / "apart" / "report.html").read_text()
        assert "no comparison of samplers" in text
        assert "<summary>Times of each run on its own" in text


def _front(folder: Path) -> str:
    lines = (folder / "report.md").read_text().splitlines()
    return next(line for line in lines if line.startswith("| sampler | calls | evaluations"))


def timed(sampler: str, *seconds: float, rows: int = 5) -> Row:
    return Row(
        sampler, 5, 5, rows, 0, 8, "mix8", "none", {"rmse": 0.1}, 8 * sum(seconds) / len(seconds),
        seconds_each=list(seconds),
    )  # fmt: skip


def test_the_fastest_is_marked_only_beyond_the_range_of_others() -> None:
    from fewstep.eval.reports.cost_tables import time_grid

    def marked(*rows: Row) -> list[str]:
        grid = time_grid(Results({}, list(rows)), "none")
        return [row[0].text for row in grid.rows if row[2].best]

    slow = timed("slow", 0.030, 0.040)
    assert marked(timed("quick", 0.010, 0.020), slow) == ["quick"]
    assert marked(timed("quick", 0.010, 0.031), slow) == []  # their ranges meet
    assert marked(timed("quick", 0.010), slow) == []  # timed once: there is no range
    assert marked(timed("quick", 0.010, 0.020, rows=4), slow) == []  # it had less to do
    (row, _) = time_grid(Results({}, [timed("quick", 5e-5, 6e-5), slow]), "none").rows
    assert (row[2].text, row[3].text) == ("55 µs", "50 µs to 60 µs")
