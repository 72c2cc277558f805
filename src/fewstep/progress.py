"""How far a long run is: a bar on a terminal, a line each half minute in a log.

    with Progress.shown("gen", "units") as progress:
        for done in range(40):
            progress.at(done, 40)

writes ``gen: 12 of 40 units, 3 min 10 s gone, about 7 min left, 4.1 units a second`` to stderr. The
work only tells where it is, which costs nothing; a thread of its own writes. A run that is over
before the first line is due writes none, and of several processes the first alone writes.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

# Seconds. The first line is due before anyone thinks that nothing happens, and late enough for
# torch's import, which holds the interpreter for half a second at a time.
FIRST, EVERY = 1.5, 30.0
LOADING = "loading"


class Face(Protocol):
    """What shows the state of a run."""

    def update(self) -> None:
        """The state has changed."""

    def say(self, line: str) -> None:
        """Prints a line of results to stdout."""

    def close(self, finished: bool) -> None:
        """Nothing more comes; ``finished`` if there is an amount that is done."""


class Progress:
    """The state of a run, in words.

    Args:
        name: of the command, in front of each line.
        noun: what is counted, as in "units"; without one, lines have a percentage.
        rated: what the rate is of, as in "samples"; ``noun`` if None.
        per: how many of those a counted thing is worth.
        clock: seconds from any start.
    """

    def __init__(
        self, name: str, noun: str = "", *, rated: str | None = None, per: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.name, self.noun, self.per = name, noun, per
        self.rated = noun if rated is None else rated
        self.done, self.total, self.text = 0.0, 0.0, LOADING
        self._clock, self._began = clock, clock()
        self._first: tuple[float, float] | None = None  # done, and when, of a stage's first news
        self._last = self._began
        self._face: Face = Silent()

    @classmethod
    def shown(
        cls, name: str, noun: str = "", *, rated: str | None = None, per: float = 1.0,
        quiet: bool = False,
    ) -> "Progress":  # fmt: skip
        """One that shows itself at once: on a terminal, in a log, or not at all if ``quiet``."""
        progress = cls(name, noun, rated=rated, per=per)
        # Launchers number their processes so; asking torch would import it.
        if quiet or os.environ.get("RANK", "0") != "0":
            return progress
        lines = not sys.stderr.isatty()
        progress._face = Lines(progress.words, FIRST, EVERY) if lines else Bar(progress)
        return progress

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.close(finished=kind is None)

    def stage(self, text: str) -> None:
        """Something else begins, of unknown length."""
        self.done, self.total, self.text, self._first = 0.0, 0.0, text, None
        self._face.update()

    def at(self, done: float, total: float, text: str = "") -> None:
        """So much of the stage is done; only the first call of a stage and the last one count."""
        now = self._clock()
        if self._first is None or total != self.total:
            self._first = (done, now)
        self.done, self.total, self.text, self._last = done, total, text, now
        self._face.update()

    def say(self, line: str) -> None:
        """Prints a line to stdout, above a bar."""
        self._face.say(line)

    def close(self, finished: bool = True) -> None:
        """Ends the bar or the lines, before results are printed; may be called again."""
        face, self._face = self._face, Silent()
        # Where nothing was counted, a last line would say "loading" of what is over.
        face.close(finished and self.total > 0)

    def words(self) -> str:
        """The line of a log."""
        gone = f"{span(self._clock() - self._began)} gone"
        # Read once: the work goes on in another thread, and may begin a stage in between.
        done, total, text = self.done, self.total, self.text
        if not total:
            return f"{self.name}: {text}, {gone}"
        if self.noun:
            amount = f"{done:g} of {total:g} {self.noun}{f' ({text})' if text else ''}"
        else:
            amount = f"{done / total:.0%}{f', {text}' if text else ''}"
        parts = [f"{self.name}: {amount}", gone]
        before, since = self._first or (done, self._last)
        made, spent = done - before, self._last - since
        if made > 0 and spent > 0:
            if done < total:
                parts.append(f"about {span((total - done) * spent / made)} left")
            if self.rated:
                parts.append(f"{count(made * self.per / spent)} {self.rated} a second")
        return ", ".join(parts)


class Silent:
    """Shows nothing."""

    def update(self) -> None:
        """Nothing to show."""

    def say(self, line: str) -> None:
        print(line)

    def close(self, finished: bool) -> None:
        """Nothing to end."""


class Lines:
    """Lines on stderr, from a thread: the first soon, then one each half minute, and a last one.

    Args:
        words: gives the line.
        first, every: seconds.
    """

    def __init__(self, words: Callable[[], str], first: float, every: float) -> None:
        self._words, self._waits = words, (first, every)
        self._over, self._spoke = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def update(self) -> None:
        """The thread looks by itself."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    def close(self, finished: bool) -> None:
        self._over.set()
        self._thread.join()
        if finished and self._spoke:
            self._write()

    def _run(self) -> None:
        first, every = self._waits
        wait = first
        while not self._over.wait(wait):
            if not self._write():
                return
            wait = every

    def _write(self) -> bool:
        """Whether there still is something to write to: a run outlives its log."""
        self._spoke = True
        try:
            print(self._words(), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return False
        return True


class Bar:
    """rich's bar on a terminal, with times and what runs now."""

    def __init__(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Shown

        columns = (
            BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )  # fmt: skip
        self._progress = progress
        # Results go to stdout, which may be a file while stderr is a terminal.
        self._shown = Shown(*columns, console=Console(stderr=True), redirect_stdout=False)
        self._task = self._shown.add_task(progress.text, total=None)
        self._shown.start()

    def update(self) -> None:
        state = self._progress
        counted = f"{state.done:g} of {state.total:g} {state.noun}" if state.noun else ""
        text = ", ".join(part for part in (counted if state.total else "", state.text) if part)
        self._shown.update(
            self._task, completed=state.done, total=state.total or None, description=text
        )

    def say(self, line: str) -> None:
        if sys.stdout.isatty():
            self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def close(self, finished: bool) -> None:
        self._shown.stop()


def count(number: float) -> str:
    """As in ``4.04``, ``152`` or ``68,200``."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def span(seconds: float) -> str:
    """As in ``42 s``, ``3 min 10 s``, ``25 min`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    return minutes_text(seconds)


def minutes_text(seconds: float) -> str:
    """As in ``25 min`` or ``2 h 10 min``."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
