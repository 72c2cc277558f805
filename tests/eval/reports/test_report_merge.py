"""``fewstep report``: one folder again, several together, or a line that says why not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_results import sample_results

from fewstep.eval.cli import main
from fewstep.eval.reports.lines import LINES, append_run
from fewstep.eval.reports.merging import merged, newest
from fewstep.eval.reports.report import write_report
from fewstep.eval.reports.results import Results


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["report", *map(str, arguments)])
    return int(done.value.code or 0)


def test_two_folders_become_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = sample_results(samplers=("ddim",)), sample_results(samplers=("unipc",))
    theirs.env |= {"device": "cuda:0", "determinism": "numeric", "device_name": "H100"}
    append_run(sample_results(samplers=("heun",)), _made(tmp_path / "a") / LINES)  # an older run
    append_run(ours, tmp_path / "a" / LINES)
    append_run(theirs, _made(tmp_path / "b") / LINES)
    assert run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c") == 0
    assert str(tmp_path / "c" / "report.html") in capsys.readouterr().out
    found = newest(tmp_path / "c")
    assert found.rows == [*ours.rows, *theirs.rows]
    assert found.env["device"] == "cpu; cuda:0"
    assert found.env["floor"] == ours.env["floor"]
    assert {key[1] for key in found.images} == {"ddim", "unipc"}
    assert [part["folder"] for part in found.settings["merged"]] == [
        str(tmp_path / "a"), str(tmp_path / "b")
    ]  # fmt: skip
    # The sources are as they were, and the report is one like others.
    assert [path.name for path in (tmp_path / "a").iterdir()] == [LINES]
    assert run(tmp_path / "c") == 0


def test_equal_rows_are_taken_once() -> None:
    first, second = sample_results(), sample_results(samplers=("ddim", "heun"), scale=1.001)
    both = merged({"a": first, "b": second})
    assert both.rows[:16] == first.rows
    assert {row.sampler for row in both.rows[16:]} == {"heun"}


def _changed(**env: object) -> Results:
    results = sample_results()
    results.env |= env
    return results


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (sample_results(n=32), "number of samples 24 in the one and 32 in the other"),
        (sample_results(problem="digits"), "problem fashion in the one and digits"),
        (sample_results(seeds=(0, 2)), r"seeds \[0, 1\] in the one and \[0, 2\]"),
        (_changed(fingerprint="0"), "model fingerprint f+ in the one and 0 in"),
        (_changed(answers={"numbers": [1.0, 2.1], "tolerance": 1e-4}), "answer fixed noise in two"),
        (_changed(extractor={"name": "pixels:1x28x28"}), "extractor fd-cnn:fashion in .* pixels"),
        (_changed(extractor={"name": "fd-cnn:fashion", "sha256": "d"}), "weights e+ in"),
        (_changed(ref={"name": "fashion", "hash": "b"}), "reference a+ in the one and b"),
        (sample_results(scale=1.1), "of ddim at 4 calls is .* in the one and .* in the other"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: Results, message: str) -> None:
    with pytest.raises(ValueError, match=f"^a and b cannot be compared: .*{message}") as error:
        merged({"a": sample_results(), "b": other})
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("report them apart")


def test_protocols_are_not_mixed() -> None:
    one, other = sample_results(), sample_results()
    one.env["ref"] |= {"protocol": "edm"}
    other.env["ref"] |= {"protocol": "clean"}
    with pytest.raises(ValueError, match="protocol edm in the one and clean in the other"):
        merged({"a": one, "b": other})


def test_what_is_not_known_does_not_stop_a_merge() -> None:
    """Old results name neither the extractor's weights nor the reference."""
    old = sample_results(samplers=("heun",))
    del old.env["extractor"], old.env["ref"]
    assert len(merged({"a": sample_results(), "b": old}).rows) == 24


def test_a_folder_from_before_the_lines_still_has_a_report(tmp_path: Path) -> None:
    old = sample_results()
    (_made(tmp_path / "old") / "results.json").write_text(old.to_json())
    assert newest(tmp_path / "old").rows == old.rows
    assert run(tmp_path / "old", "-o", tmp_path / "new") == 0
    assert newest(tmp_path / "new").rows == old.rows
    assert "2.000" in (tmp_path / "new" / "report.html").read_text()
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["results.json"]


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _made(tmp_path / "a"), _made(tmp_path / "b")
    write_report(sample_results(), a)
    append_run(sample_results(n=32), b / LINES)
    (_made(tmp_path / "c") / "results.json").write_text("{")
    (_made(tmp_path / "d") / "results.json").write_text(json.dumps({"schema": 9}))
    head = (a / LINES).read_text().splitlines()[0]
    (_made(tmp_path / "e") / LINES).write_text(head + "\n")
    capsys.readouterr()
    for arguments, message in (
        ((a, b, "-o", tmp_path / "x"), f"{a} and {b} cannot be compared: number of samples"),
        ((a, b), "several folders need --out"),
        ((tmp_path / "none",), "no results.jsonl in"),
        ((tmp_path / "c",), "is no file of results"),
        ((tmp_path / "d",), "schema 9; known: 1 and 2"),
        ((tmp_path / "e",), "has no finished run"),
    ):
        assert run(*arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("error: ")
        assert message in lines[-1]
        assert not [line for line in lines[:-1] if "cut off before its end" not in line]
    assert not (tmp_path / "x").exists()


def test_repeats_have_mean_deviation_and_least_value(tmp_path: Path) -> None:
    results = sample_results(samplers=("ddim",), guidance=("none",), seeds=(0, 1, 2))
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    # 0.25, 0.2625 and 0.275 have the mean 0.2625 and the standard deviation 0.0125.
    assert "| `ddim` | 0.2625 ± 0.0125 (min 0.2500) |" in text
    assert "seeds 0, 1, 2" in text
    assert results.metric("rmse")["ddim"][4] == pytest.approx(0.2625)
    # One repeat has no deviation, and its value is not changed by taking a mean.
    single = replace(results.rows[0], metrics={"rmse": 0.1})
    assert Results({}, [single]).metric("rmse") == {"ddim": {4: 0.1}}


def test_time_is_told_by_phase(tmp_path: Path) -> None:
    write_report(sample_results(samplers=("ddim",), guidance=("none",)), tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    head = "| sampler | calls | time/image | images/s | network | solver | features | peak MiB |"
    # Two seeds of 24 samples in 40 ms each.
    assert lines[lines.index(head) + 2] == (
        "| `ddim` | 4 | 1.67 ms | 600 | 1.5 ms | 167 µs | 833 µs | 300 |"
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
