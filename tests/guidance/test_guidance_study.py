"""The parts of the guidance study; its figures are in ``docs/guidance.md``."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import guidance_runs as runs
import guidance_study as study
import pytest
import tiny_pipelines as tiny
import torch
import typer
from bundled_files import present
from diffusers import DiTPipeline
from guidance_judges import PixelJudge, real_images
from guidance_runs import Case, RecordedGFCG, Store

from fewstep.eval.problems import Problem, load_problem
from fewstep.guidance import (
    BoostAndSkip,
    EnergyGuidance,
    Expression,
    FKSteering,
    parse_guidance,
)
from fewstep.guidance.parse import MODIFIERS, SOURCES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guidance.md").read_text()


@pytest.fixture(scope="module")
def problem() -> Problem:
    return load_problem("fashion")


class FakeJudges:
    """Counts what it is asked; the real ones take seconds to load."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: torch.Tensor, labels: torch.Tensor | None) -> dict[str, float]:
        self.asked += 1
        return {"fd": float(images.float().mean())}


@pytest.fixture
def store(problem: Problem, tmp_path: Path) -> Callable[[], Store]:
    def make() -> Store:
        made = Store(tmp_path, problem, 3, 5)
        vars(made)["judges"] = FakeJudges()
        return made

    return make


def test_finished_rows_are_kept(store: Callable[[], Store], monkeypatch) -> None:
    """A second study reads them; a third, without the rows, still finds the samples."""
    first, case = store(), Case("cfg:2", calls=2)
    figures = first.row(case)
    assert figures["rows"] == 4
    assert figures["network_calls"] == 2
    monkeypatch.setattr(runs, "draw", lambda *args: pytest.fail("drawn again"))
    second = store()
    assert second.row(case) == figures
    assert second.judges.asked == 0
    (line,) = (second.folder / "rows.jsonl").read_text().splitlines()
    assert json.loads(line)["figures"] == figures
    (second.folder / "rows.jsonl").unlink()
    third = store()
    assert third.row(case) == figures
    assert third.judges.asked == 1


def test_keys_tell_cases_samples_and_weights_apart(store: Callable[[], Store]) -> None:
    made = store()
    cases = [Case(), Case("cfg:2"), Case(calls=9), Case(sampler="euler"), Case(labelled=False)]
    keys = {made.key(case) for case in cases}
    made.seed += 1
    assert len(keys | {made.key(Case())}) == 6


def test_a_sample_does_not_depend_on_its_batch(problem: Problem, monkeypatch) -> None:
    case = Case("icg:1.4", calls=2)
    whole, _ = runs.draw(case, problem, 3, 7, "float32")
    monkeypatch.setattr(runs, "BATCH", 2)
    parts, costs = runs.draw(case, problem, 3, 7, "float32")
    assert costs["rows"] == 4
    # Rounding of the batched products may move a pixel by one of 255.
    assert (whole.int() - parts.int()).abs().max() <= 1


def test_the_mean_scale_of_gfcg_is_recorded(problem: Problem) -> None:
    found = runs.expression_of(Case("gfcg:3", weak=True), problem)
    assert isinstance(found, RecordedGFCG)
    assert found.weak is not None
    assert found.name == "RecordedGFCG"
    _, costs = runs.draw(Case("gfcg:3"), problem, 2, 7)
    assert 1 < costs["mean_scale"] < 3


def test_boosted_and_unlabelled_cases_run(problem: Problem) -> None:
    images, costs = runs.draw(
        Case(calls=6, sampler="euler_a", boost=(2.0, 4.0), labelled=False), problem, 2, 7
    )
    assert images.shape == (2, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert costs["rows"] < 6


@pytest.mark.parametrize("text", study.GATED)
def test_calls_fill_the_rows(text: str, problem: Problem) -> None:
    calls = study.calls_within(12, text, problem)
    _, costs = runs.draw(Case(text, calls), problem, 1, 7)
    _, more = runs.draw(Case(text, calls + 1), problem, 1, 7)
    assert costs["rows"] <= 12 < more["rows"]


ALL_CASES = [*study.UNGUIDED, *study.RARE, *study.RARE_SCANNED,
             *map(Case, (*study.EQUAL, *study.GATED, *study.SCANNED))]  # fmt: skip


@pytest.mark.parametrize("case", dict.fromkeys(ALL_CASES), ids=str)
def test_every_case_can_be_read(case: Case) -> None:
    def model(x: object, level: object) -> None: ...

    names = ("classifier", "minority classifier", "weak model")
    found = parse_guidance(case.guidance, dict.fromkeys(names, lambda: model))
    assert found is None or isinstance(found, Expression)


def test_nearest_neighbours_answer_with_the_commonest_class() -> None:
    """Ten neighbours on a line: six of class 1, then a tie that the nearest decides."""
    images = torch.zeros(20, 1, 1, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(20, dtype=torch.uint8) * 12
    components = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    labels = torch.tensor([1] * 6 + [0] * 14)
    judge = PixelJudge(components, images, labels)
    asked = torch.zeros(3, 1, 1, 2, dtype=torch.uint8)
    asked[:, 0, 0, 0] = torch.tensor([0, 60, 200], dtype=torch.uint8)
    assert judge.answers(asked).tolist() == [1, 1, 0]
    asked[0, 0, 0, 0] = 67  # of the ten nearest five are of either class, the nearest is of 0
    assert judge.answers(asked[:1]).tolist() == [0]


@pytest.mark.skipif(not present("data"), reason="no Fashion-MNIST")
def test_real_images_come_in_turn() -> None:
    images, labels = real_images(25, 3)
    assert labels.tolist() == [i % 10 for i in range(25)]
    assert images.shape == (25, 1, 28, 28)
    assert not torch.equal(images, real_images(25, 4)[0])
    assert real_images(25, 3, "at random")[1].tolist() != labels.tolist()


def test_tables_have_dashes_for_what_is_missing() -> None:
    text = study.table([("a", {"fd": 0.12345, "rows": 20})], ("rows", "FD", "accuracy"))
    assert text.splitlines() == [
        "| guidance | rows | FD | accuracy |", "|---|---|---|---|", "| a | 20.0 | 0.123 | - |"
    ]  # fmt: skip


def test_titles_are_safe_in_tables() -> None:
    assert Case("cfg:2|interval:0.3,3").title == "`cfg:2\\|interval:0.3,3`"
    assert Case(boost=(4.0, 2.0)).title == "BoostAndSkip(4, start_rho=2)"


@pytest.mark.parametrize("wrong", [{"part": "nope"}, {"precision": "float16"}])
def test_unknown_parts_are_refused(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"nope|float16"):
        study.main(**{"part": "rows", "n": 2, "seed": 1, "out": tmp_path, **wrong})


# The page


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_python_of_the_page_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks, one after the other; a small pipeline is in place of the download."""
    monkeypatch.setattr(DiTPipeline, "from_pretrained", lambda name: tiny.dit())
    names: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        block = block.replace("[207, 360]", "[2, 3]")  # the small one has few classes
        exec(compile(block, "guidance", "exec"), names)
        asserted = re.search(r"print\(.*  # (.*)", block)
        assert not asserted or capsys.readouterr().out == f"{asserted[1]}\n"


def test_the_page_names_every_part() -> None:
    """A line for each source, modifier and hook, with its written name and its arguments."""
    parts = {kind.__name__: (name, kind) for name, kind in {**SOURCES, **MODIFIERS}.items()}
    hooks = {kind.__name__: ("", kind) for kind in (EnergyGuidance, BoostAndSkip, FKSteering)}
    for name, (written, kind) in {**parts, **hooks}.items():
        heading = f"| `{name}` `{written}` |" if written else f"| `{name}` |"
        (line,) = [line for line in PAGE.splitlines() if line.startswith(heading)]
        for argument in inspect.signature(kind).parameters.keys() - {"site"}:
            assert f"`{argument}" in line, (name, argument)
        paper = re.search(r"arXiv:(\d{4}\.\d{5})", kind.__doc__ or "")
        assert paper is None or paper[1] in line
