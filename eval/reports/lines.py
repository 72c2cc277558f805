"""``results.jsonl``: every run of a folder, a JSON object a line, only ever added to.

A run begins with a line of its environment and settings, then has a line for each row and each set
of images, and a last line that counts them. Without its last line it was not finished. All other
files of a report are made from these lines alone.
"""

import json
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fewstep.eval.common.durable import append_durably
from fewstep.eval.reports.results import Results, Row
from fewstep.eval.reports.thumbnails import Pixels, from_thumbnails, to_thumbnails

LINES = "results.jsonl"
SCHEMA = 3
Line = dict[str, Any]


@dataclass
class _Run:
    """The lines of one run, by kind."""

    head: Line
    rows: list[Line] = field(default_factory=list)
    images: list[Line] = field(default_factory=list)
    end: Line | None = None


def append_run(results: Results, path: Path, settings: dict[str, Any] | None = None) -> str:
    """Adds a run to a file, such that it stays, or counts as unfinished.

    Args:
        results: rows, environment and images; a start without a time is now.
        path: the file, made if needed.
        settings: what was asked for, resolved; those of ``results`` if None.

    Returns:
        The run's name, new in every call.

    Raises:
        ValueError, TypeError: if JSON cannot hold a value.
    """
    text, run = run_lines(results, settings)
    append_durably(path, text)
    return run


def run_lines(results: Results, settings: dict[str, Any] | None = None) -> tuple[str, str]:
    """The lines of :func:`append_run` and the name of the run."""
    run = secrets.token_hex(6)
    started = results.started or datetime.now(UTC).isoformat(timespec="seconds")
    settings = results.settings if settings is None else settings
    lines: list[Line] = [
        {"schema": SCHEMA, "kind": "run", "run": run, "started": started, "env": results.env,
         "settings": settings},
        *({"kind": "row", "run": run, **row.table()} for row in results.rows),
        *({"kind": "images", "run": run, **line} for line in _image_lines(results)),
    ]  # fmt: skip
    count = {"rows": len(results.rows), "images": len(lines) - len(results.rows) - 1}
    lines.append({"kind": "end", "run": run, **count})
    return "\n".join(json.dumps(line, allow_nan=False) for line in lines), run


def _image_lines(results: Results) -> Iterator[Line]:
    for guidance, images in results.reference_images.items():
        yield {"guidance": guidance, "sampler": None, "nfe": None, "png": to_thumbnails(images)}
    for key, images in results.images.items():
        guidance, sampler, nfe, seeds = key
        names = {"seeds": seeds, "labels": list(results.labels.get(key, ()))}
        yield {
            "guidance": guidance, "sampler": sampler, "nfe": nfe, "png": to_thumbnails(images),
            **{name: value for name, value in names.items() if value},
        }  # fmt: skip


def read_runs(path: Path) -> list[Results]:
    """The finished runs of a file, the newest last; a warning tells of others.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another schema, or if lines of a finished run are missing or changed.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} in {path.parent}: no benchmark was written there; `fewstep bench` and "
            "`fewstep calc -o` write one, `fewstep gen` does not"
        )
    return parse_runs(path.read_text(), path)


def parse_runs(text: str, path: Path) -> list[Results]:
    """As :func:`read_runs`, of the text of the file ``path``."""
    runs, cut = _by_run(text, path)
    if cut:
        warnings.warn(
            f"{path}: the newest run was cut off before its end and is left out; run it again",
            stacklevel=3,
        )
    # Their order is that in which they ended.
    return [_results(path, lines) for lines in runs.values() if lines.end is not None]


def _by_run(written: str, path: Path) -> tuple[dict[str, _Run], bool]:
    """The lines of each run in the order they ended; whether one was cut off after all ends."""
    runs: dict[str, _Run] = {}
    cut = False
    for number, text in enumerate(written.split("\n"), 1):
        if not text:
            continue
        try:
            line: Line = json.loads(text)
        except json.JSONDecodeError:  # the last line before a crash
            cut = True
            continue
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number}: no JSON object; restore the file")
        line["line"] = number
        kind, name = line.get("kind"), line.get("run")
        if kind == "run":
            if line.get("schema") != SCHEMA:
                raise ValueError(
                    f"{path}, line {number}: results of schema {line.get('schema')!r}; known: "
                    f"{SCHEMA}; use the fewstep that wrote them"
                )
            runs[str(name)], cut = _Run(line), True
            continue
        run = runs.get(str(name))
        if run is None or kind not in ("row", "images", "end"):
            raise ValueError(f"{path}, line {number}: kind {kind!r} of run {name!r} fits nothing")
        if kind == "end":
            run.end, cut = line, False
            runs[str(name)] = runs.pop(str(name))
        else:
            (run.rows if kind == "row" else run.images).append(line)
    return runs, cut


def _results(path: Path, run: _Run) -> Results:
    head, end = run.head, run.end or {}
    found = (len(run.rows), len(run.images))
    expected = (end.get("rows"), end.get("images", found[1]))
    if found != expected:
        raise ValueError(
            f"{path}, line {head['line']}: run {head['run']} has {found[0]} rows and {found[1]} "
            "sets of images of "
            f"{expected[0]} and {expected[1]}; its lines were changed, restore the file"
        )
    if missing := [key for key in ("run", "started", "env", "settings") if key not in head]:
        raise ValueError(
            f"{path}, line {head['line']}: a run without {missing[0]}; restore the file"
        )
    results = Results(
        head["env"], [_row(path, line) for line in run.rows], settings=head["settings"],
        run=head["run"], started=head["started"],
    )  # fmt: skip
    for line in run.images:
        images = _images(path, line)
        if line["sampler"] is None:
            results.reference_images[line["guidance"]] = images
        else:
            key = (line["guidance"], line["sampler"], line["nfe"], line.get("seeds", ""))
            results.images[key] = images
            if line.get("labels"):
                results.labels[key] = tuple(line["labels"])
    return results


def _images(path: Path, line: Line) -> Pixels:
    try:
        return from_thumbnails(line["png"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}, line {line['line']}: its images cannot be read ({error}); restore the file"
        ) from error


def _row(path: Path, line: Line) -> Row:
    values = {key: value for key, value in line.items() if key not in ("kind", "run", "line")}
    where = f"{path}, line {line['line']}"
    if unknown := sorted(values.keys() - {part.name for part in fields(Row)}):
        raise ValueError(
            f"{where}: a row has the unknown field {unknown[0]!r}; use the fewstep that wrote it"
        )
    needed = {part.name for part in fields(Row) if part.default is part.default_factory is MISSING}
    if missing := sorted(needed - values.keys()):
        raise ValueError(f"{where}: a row without {missing[0]}; restore the file")
    return Row(**values)
