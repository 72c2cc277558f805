"""``fewstep list`` names everything with its options, whole, on any terminal and in a pipe."""

import inspect
import io
import re

import pytest
from command_line import call

from fewstep.eval.cli.docstrings import REQUIRED, described_class
from fewstep.eval.cli.entries import KINDS, entries
from fewstep.eval.common import text
from fewstep.eval.metrics.choices import EXACT, METRIC_CHOICES
from fewstep.eval.networks.families import EXTRACTORS
from fewstep.eval.problems import PROBLEMS
from fewstep.guidance.parse import MODELS, MODIFIERS, SOURCES, parse_guidance
from fewstep.samplers import SAMPLERS, build_plan
from fewstep.schedules import NAMED_GRIDS, discrete_vp

ENTRIES = list(entries())
NAMES = {
    "sampler": list(SAMPLERS), "grid": list(NAMED_GRIDS), "source": list(SOURCES),
    "modifier": list(MODIFIERS), "problem": list(PROBLEMS), "extractor": list(EXTRACTORS),
    "metric": [*METRIC_CHOICES, EXACT],
}  # fmt: skip


def words(printed: str) -> str:
    """What was printed, however it was wrapped."""
    return " ".join(printed.split())


@pytest.mark.parametrize("kind", NAMES)
def test_every_registered_name_is_listed(kind: str) -> None:
    assert [one.name for one in ENTRIES if one.kind == kind] == NAMES[kind]
    assert all(one.summary and one.example for one in ENTRIES)
    assert {one.kind for one in ENTRIES} == KINDS.keys()


def test_options_are_those_of_the_code() -> None:
    """Names and defaults, of classes that are read and not imported."""
    for kinds in (SOURCES, MODIFIERS):
        for name, kind in kinds.items():
            parameters = inspect.signature(kind).parameters.values()
            read = described_class(*kinds.place(name)).defaults
            assert list(read) == [p.name for p in parameters]
            for p in parameters:
                named = getattr(p.default, "__name__", p.default)
                assert read[p.name] == named or read[p.name] is p.default is REQUIRED
    for one in ENTRIES:
        if one.kind == "sampler":
            assert {o.name: o.default for o in one.options} == SAMPLERS[one.name].options()
        assert all(o.meaning for o in one.options), one.name


def test_papers_and_needs_are_told() -> None:
    of_guidance = [one for one in ENTRIES if one.kind in ("source", "modifier")]
    assert [one.name for one in of_guidance if not one.paper] == ["every"]
    assert {one.name: one.needs for one in of_guidance if one.needs} == {
        name: needed for name, (_, needed) in MODELS.items()
    }


class Model:
    """Stands for what guidance needs."""

    num_classes = 100

    def __call__(self, x: object, level: object, cond: object = None) -> object: ...


def test_examples_can_be_read() -> None:
    models = {needed: Model for _, needed in MODELS.values()}
    for one in ENTRIES:
        if quoted := re.search(r'--guidance "(.*)"$', one.example):
            assert parse_guidance(quoted.group(1), models) is not None
        if one.kind == "sampler":
            spec = one.example.split(" -s ")[1].split()[0]
            assert build_plan(spec, discrete_vp("linear"), 8).calls <= 8


@pytest.mark.parametrize("width", [None, 20, 40, 80, 200])
@pytest.mark.parametrize("name", [None, "dpmpp", "gfcg", "edm"])
def test_nothing_is_cut(
    name: str | None, width: int | None, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("fewstep.eval.cli.lists.terminal_width", lambda: width)
    assert call("list", *([name] if name else [])) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert not re.search(r"[\u2500-\u257f]", printed)  # no boxes
    for one in ENTRIES:
        if name not in (None, one.name):
            continue
        assert words(one.summary) in words(printed)
        for option in one.options:
            assert words(option.short if name is None else option.meaning) in words(printed)
    if width is not None:
        # A longer line holds one long word behind its indentation.
        long = [line for line in printed.splitlines() if len(line) > max(width, 36)]
        assert all(len(line[16:].split()) <= 1 for line in long if width >= 40)


def test_a_pipe_has_an_entry_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    lines = capsys.readouterr().out.splitlines()
    for one in ENTRIES:
        (line,) = [line for line in lines if line.startswith(f"{one.kind} {one.starred}  ")]
        assert all(part in line for part in (one.summary, one.home, one.paper))
    assert len(lines) == len(ENTRIES) + 1


def test_kinds_and_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("samplers", len(SAMPLERS)), ("guidance", len(SOURCES) + len(MODIFIERS))):
        assert call("list", name) == 0
        assert len(capsys.readouterr().out.splitlines()) == count
    for name in ("dpmp", "DPMPP", "dpmpp:order=3"):
        assert call("list", name) == 2
        assert f"nothing is called {name!r}; did you mean dpmpp" in capsys.readouterr().err


def test_words_longer_than_the_line_stay_whole() -> None:
    path = "/a/" + "long" * 40
    for width in (None, 5, 30):
        assert path in text.entry("cache", [path], width, 10)
        assert path in text.wrapped(f"a {path} b", width)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["20", "40", "300"])
@pytest.mark.parametrize("piped", [True, False])
def test_tables_are_whole(columns: str, piped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every character of each cell comes out, in order, and a pipe has a row a line."""
    from rich.table import Table

    out = io.StringIO() if piped else Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    table = Table("sampler", "value", title="RMSE [of all] :smile:")
    table.columns[0].no_wrap = True
    spec = "restart:intervals=" + "a-very-long-value" * 8
    table.add_row(spec, "0.125")
    text.print_table(table)
    printed = out.getvalue()
    assert printed.startswith("RMSE [of all] :smile:\n")
    assert "…" not in printed
    letters = re.sub(r"[\s\u2500-\u257f]", "", printed.partition("\n")[2])
    if piped:
        assert f"{spec}  0.125" in printed
        assert not re.search(r"[\u2500-\u257f\x1b]", printed)
    assert spec in letters.replace("0.125", "")
