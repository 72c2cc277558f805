"""Whether the scores that a folder's ``result.json`` tells are those of its samples."""

import json
import math
from pathlib import Path
from typing import Any

from fewstep.eval.images.calculate import SetScore, calculate, find_reference
from fewstep.eval.images.samples import open_samples
from fewstep.eval.networks.families import load_extractor

RESULT, FORMAT = "result.json", 1  # what `fewstep calc -o` writes into a folder of samples

# The sums are exact, so that hashes are equal or the samples are others. What is computed from them
# in float64 and, by kid and prdc, in float32 varies with the number of threads.
RELATIVE, ABSOLUTE = 1e-6, 1e-9


def recheck(folder: Path, device: str = "cpu", weights: Path | None = None) -> list[str]:
    """Scores the samples again, and tells each difference from ``result.json`` in a line.

    Args:
        folder: of ``fewstep gen``, with a result of ``fewstep calc -o``.
        device: for the extractor.
        weights: of the extractor; those that the result names if None.

    Returns:
        The differences; none if the result holds.

    Raises:
        FileNotFoundError: without a result, or its reference.
        ValueError: for a result that cannot be read, or samples or a reference that do not fit it.
        ExtractorUnavailableError: if the extractor cannot be had (exit status 3).
    """
    told = _read(folder / RESULT)
    asked, name = told["asked"], told["extractor"]["name"]
    given = weights or (asked["weights"] and Path(asked["weights"]))
    extractor = load_extractor(name, device, given)
    differences = [] if extractor.fingerprint == told["extractor"]["sha256"] else [
        f"weights of {name}: {told['extractor']['sha256'][:12]} there, "
        f"{extractor.fingerprint[:12]} now"
    ]  # fmt: skip
    reference = find_reference(
        asked["ref"], extractor, metrics=asked["metrics"], on_error=asked["on_error"]
    )
    if reference.hash != told["ref"]["hash"]:
        differences.append(
            f"reference {asked['ref']}: hash {told['ref']['hash'][:12]} there, "
            f"{reference.hash[:12]} now"
        )
    samples = open_samples(folder, extractor, num=asked["num"])
    found = calculate(samples, reference, metrics=asked["metrics"], repeats=asked["repeats"])
    if len(found) != len(told["sets"]):
        return [*differences, f"{len(told['sets'])} scores there, {len(found)} now"]
    for then, now in zip(told["sets"], found, strict=True):
        differences += _differences(then, now)
    return differences


def _differences(then: dict[str, Any], now: SetScore) -> list[str]:
    where = f"samples {now.first} to {now.first + now.n - 1}: "
    lines = [
        f"{where}{name} {str(then[name])[:12]} there, {str(value)[:12]} now"
        for name, value in now.table().items()
        if name not in ("samples", "metrics") and then[name] != value
    ]
    for key in {**then["metrics"], **now.metrics}:
        old, new = then["metrics"].get(key), now.metrics.get(key)
        if old is None or new is None:
            lines.append(f"{where}{key} {old} there, {new} now")
        elif not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            lines.append(f"{where}{key} {old:.8g} there, {new:.8g} now")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        known = told["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); run fewstep calc -o again") from error
    if not known:
        raise ValueError(
            f"{path} has format {told['format']}, known is {FORMAT}; run fewstep calc -o again"
        )
    return told
