"""How far a run is, in words: a first line soon, then one each half minute, from another thread."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from generation_runs import small_run

from fewstep import progress as module
from fewstep.eval.generate.generation import generate_images
from fewstep.progress import Bar, Lines, Progress, Silent, count, span


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_amount_time_gone_time_left_and_rate() -> None:
    clock = Hands()
    progress = Progress("gen", "units", rated="samples", per=64, clock=clock)
    assert progress.words() == "gen: loading, 0 s gone"
    clock.now += 10
    progress.at(4, 40)  # of an earlier start
    clock.now += 160
    progress.at(12, 40)
    clock.now += 20  # in the middle of a unit: what is left is of the last news
    assert progress.words() == (
        "gen: 12 of 40 units, 3 min 10 s gone, about 9 min 20 s left, 3.2 samples a second"
    )
    progress.at(40, 40)
    assert progress.words() == "gen: 40 of 40 units, 3 min 10 s gone, 12.8 samples a second"


def test_without_a_noun_there_is_a_share_and_a_text() -> None:
    clock = Hands()
    progress = Progress("bench", clock=clock)
    progress.at(0, 200, "0 of 12 units (begun)")
    clock.now += 30
    progress.at(50, 200, "3 of 12 units, 152 network rows a second (unipc, 8 calls)")
    assert progress.words() == (
        "bench: 25%, 3 of 12 units, 152 network rows a second (unipc, 8 calls), 30 s gone, "
        "about 1 min 30 s left"
    )


def test_a_stage_begins_anew() -> None:
    clock = Hands()
    progress = Progress("calc", "images", clock=clock)
    progress.at(0, 10)
    clock.now += 5
    progress.at(10, 10)
    progress.stage("samples.zip")
    assert progress.words() == "calc: samples.zip, 5 s gone"
    progress.at(0, 100, "samples.zip")
    clock.now += 2
    progress.at(50, 100, "samples.zip")
    assert progress.words() == (
        "calc: 50 of 100 images (samples.zip), 7 s gone, about 2 s left, 25 images a second"
    )


def test_counts_are_read_at_a_glance() -> None:
    assert [count(x) for x in (4.0412, 99.96, 152.4, 68234.5)] == ["4.04", "100", "152", "68,234"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (599, "9 min 59 s"),
     (600, "10 min"), (3599, "1 h 0 min"), (7800, "2 h 10 min")],
)  # fmt: skip
def test_spans_of_time(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_lines_come_from_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """The first, one each interval while the work says nothing, and a last one at the end."""
    said = threading.Semaphore(0)

    def words() -> str:
        said.release()
        return "gen: at work"

    lines = Lines(words, first=0.0, every=0.001)
    for _ in range(3):
        assert said.acquire(timeout=60)
    lines.close(finished=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert set(printed.err.splitlines()) == {"gen: at work"}
    assert printed.err.count("\n") >= 4
    assert threading.current_thread() is threading.main_thread()
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(lambda: "gen: at work", first=60.0, every=60.0)
    lines.close(finished=True)
    assert capsys.readouterr().err == ""


def test_a_run_that_fails_or_counts_nothing_has_no_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of what is over it would say "loading", below the results."""
    for error, counted, lines in ((ValueError, 5, 0), (None, 5, 1), (None, 0, 0)):
        progress = Progress.shown("gen")
        progress.at(counted, counted)
        progress._face._spoke = True  # type: ignore[attr-defined]
        progress.__exit__(error)
        assert capsys.readouterr().err.count("\n") == lines


def test_a_log_that_is_gone_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    lines = Lines(lambda: "gen: at work", first=60.0, every=60.0)
    monkeypatch.setattr(sys, "stderr", Gone())
    assert not lines._write()
    lines.close(finished=True)


def test_only_the_first_process_speaks_and_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = []
    for rank, quiet in ((None, False), ("0", False), ("1", False), ("0", True)):
        if rank is None:
            monkeypatch.delenv("RANK", raising=False)
        else:
            monkeypatch.setenv("RANK", rank)
        with Progress.shown("gen", quiet=quiet) as progress:
            faces.append(type(progress._face))
    assert faces == [Lines, Lines, Silent, Silent]


def test_a_terminal_has_a_bar_and_pipes_keep_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Progress.shown("tune", "units") as progress:
        assert isinstance(progress._face, Bar)
        progress.at(3, 9, "[bold]markup[/bold]")
        progress.say("a result [as it is]")
    printed = capsys.readouterr()
    assert printed.out == "a result [as it is]\n"
    assert "3 of 9 units, [bold]markup[/bold]" in printed.err


def test_telling_costs_no_step(tmp_path: Path) -> None:
    """It is told of units, not of steps: as often as there are units, and once before."""
    told: list[tuple[int, int]] = []
    run = small_run(22)
    generate_images(run, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, run.units) for done in range(run.units + 1)]


@pytest.mark.parametrize(
    "command",
    [["bench", "-m", "mix8", "-s", "ddim", "--nfe", "4", "--n", "4"],
     ["gen", "-m", "mix8", "-s", "ddim", "--nfe", "2", "--seeds", "0-3", "-o", "run",
      "--keep", "none", "--extractor", "nothing"],
     ["calc", "none.zip", "--ref", "none.npz"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_the_first_line_of_a_log_comes_before_torch(command: list[str], tmp_path: Path) -> None:
    """Within three seconds of processor time, which a loaded machine stretches for all alike."""
    started = time.monotonic()
    base = subprocess.run([sys.executable, "-c", "import typer, rich"], check=True)
    base_seconds = time.monotonic() - started
    assert base.returncode == 0
    environment = {**os.environ, "FEWSTEP_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fewstep", *command], cwd=tmp_path, env=environment,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    started = time.monotonic()
    assert process.stderr is not None
    line = process.stderr.readline()
    seconds = time.monotonic() - started
    process.kill()
    process.wait()
    process.stderr.close()
    assert re.fullmatch(rf"{command[0]}: loading, \d+ s gone\n", line)
    # Its start, some base imports of .2 s here, then the wait, and half a second of a held lock.
    assert seconds < max(3.0, module.FIRST + 10 * base_seconds)


def test_a_stage_that_begins_while_a_line_is_written_spoils_no_line() -> None:
    """The thread of the log reads while the work goes on."""

    class Moving(Progress):
        @property
        def total(self) -> float:  # type: ignore[override]
            now, self.next = self.next, 0.0  # each look finds the stage gone
            return now

        @total.setter
        def total(self, value: float) -> None:
            self.next = value

    progress = Moving("bench")
    progress.at(1, 4)
    progress.total = 4.0
    assert progress.words().startswith("bench: 25%")
