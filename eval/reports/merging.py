"""Runs of several folders in one report, where their numbers may stand in one column."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.eval.common.sketches import agree
from fewstep.eval.reports.lines import LINES, read_runs
from fewstep.eval.reports.results import Results, Row
from fewstep.eval.reports.titles import extractor_name, is_of_features

OLD = "results.json"
# The same run twice differs by rounding, on another device by a little more.
SAME = 0.01


def newest(folder: Path) -> Results:
    """The newest finished run of a folder; of one from before ``results.jsonl``, without images.

    Raises:
        FileNotFoundError: if there is no report.
        ValueError: if none is finished, or the file is of another schema.
    """
    old = folder / OLD
    if not (folder / LINES).exists() and old.is_file():
        try:
            return Results.from_json(old.read_text())
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{old} is no file of results: {error}") from error
    runs = read_runs(folder / LINES)
    if not runs:
        raise ValueError(f"{folder / LINES} has no finished run; run the benchmark again")
    return runs[-1]


def merged(found: Mapping[str, Results]) -> Results:
    """One set of results of several.

    A row that several have, by guidance, sampler, calls and seed, is taken from the first.

    Args:
        found: results by folder, two or more.

    Raises:
        ValueError: in one line, if two differ in what numbers depend on.
    """
    (first, start), *others = found.items()
    rows = {_key(row): (first, row) for row in start.rows}
    for folder, results in others:
        _refuse_strangers(first, start, folder, results)
        for row in results.rows:
            if _key(row) in rows:
                _check_repeated(*rows[_key(row)], folder, row)
            rows.setdefault(_key(row), (folder, row))
    whole = Results(_environment(list(found.values())), [row for _, row in rows.values()])
    for results in found.values():
        whole.images = results.images | whole.images
        whole.labels = results.labels | whole.labels
        whole.reference_images = results.reference_images | whole.reference_images
    whole.started = max(results.started for results in found.values())
    whole.settings = {"merged": [
        {"folder": folder, "run": results.run, "started": results.started,
         "settings": results.settings}
        for folder, results in found.items()
    ]}  # fmt: skip
    return whole


def facts(results: Results) -> dict[str, Any]:
    """What numbers depend on, by name; None where it is not known or does not matter."""
    env, of_features = results.env, is_of_features(results)
    extractor, reference = env.get("extractor", {}), env.get("ref", {})
    return {
        "problem": results.rows[0].problem,
        "number of samples": results.rows[0].n,
        "seeds": _seeds(results),
        "model fingerprint": env.get("fingerprint"),
        "extractor": extractor_name(results) if of_features else None,
        "extractor's weights": extractor.get("sha256"),
        "protocol": extractor.get("protocol") or reference.get("protocol"),
        "reference": reference.get("hash"),
    }


def _seeds(results: Results) -> list[Any] | None:
    """Those of all samples; None of a report of ``calc`` from before they were kept."""
    if "calc" in results.settings:
        known = all(row.seeds for row in results.rows)
        return sorted({row.seeds for row in results.rows}) if known else None
    return sorted({row.seed for row in results.rows})


def _refuse_strangers(first: str, start: Results, folder: str, results: Results) -> None:
    answers = [found.env.get("answers") for found in (start, results)]
    if None not in answers and not agree(*answers):
        raise ValueError(
            f"{first} and {folder} cannot be compared: their models answer fixed noise in two "
            "ways; report them apart"
        )
    theirs = facts(results)
    for name, ours in facts(start).items():
        other = theirs[name]
        if ours is not None and other is not None and ours != other:
            raise ValueError(
                f"{first} and {folder} cannot be compared: {name} {ours} in the one and {other} in "
                "the other; report them apart"
            )


def _check_repeated(first: str, row: Row, folder: str, other: Row) -> None:
    """Raises ValueError if the same run gave two results, so that something unrecorded differs."""
    for name in row.metrics.keys() & other.metrics.keys():
        ours, theirs = row.metrics[name], other.metrics[name]
        if abs(ours - theirs) > SAME * max(abs(ours), abs(theirs)):
            raise ValueError(
                f"{first} and {folder} cannot be compared: {name} of {row.sampler} at {row.nfe} "
                f"calls is {ours:g} in the one and {theirs:g} in the other; report them apart"
            )


def _key(row: Row) -> tuple[str, str, int, str]:
    return row.guidance, row.sampler, row.nfe, row.starts


def _environment(found: list[Results]) -> dict[str, Any]:
    """Tables united, where the first counts; other values as they are or, if they differ, all."""
    whole: dict[str, Any] = {}
    for name in dict.fromkeys(name for results in found for name in results.env):
        values = [results.env[name] for results in found if name in results.env]
        if isinstance(values[0], dict):
            whole[name] = {k: v for value in reversed(values) for k, v in value.items()}
        else:
            differing = list(dict.fromkeys(map(str, values)))
            whole[name] = values[0] if len(differing) == 1 else "; ".join(differing)
    return whole
