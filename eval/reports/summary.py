"""The facts at the top of a report: what was run, on what, and what it may be compared with."""

from collections.abc import Iterator
from typing import Any

from fewstep.eval.metrics.choices import sample_count
from fewstep.eval.reports.parts import SEPARATE, parts, seeds_of, short
from fewstep.eval.reports.results import PEER_PREFIX, Results
from fewstep.eval.reports.titles import (
    comparison_note,
    extractor_name,
    is_of_features,
    rank_note,
)

VERSIONS = ("fewstep", "torch", "diffusers", "numpy", "python")
DETERMINISM = {
    "bitwise": "bitwise: the same bits again on this kind of device with as many threads and the "
    "same versions",
    "numeric": "numeric: the same up to rounding",
}
SHORT = 16  # digits of a hash


def notes(results: Results) -> list[str]:
    """What a reader must know before comparing numbers."""
    found = [
        SEPARATE if len(parts(results)) > 1 else "",
        comparison_note(results),
        *without_reference(results),
    ]
    return [line for line in found if line]


def few_notes(results: Results) -> list[str]:
    """Which scores are of too few samples; see :func:`.titles.rank_note`."""
    return [note for metric in results.metrics if (note := rank_note(results, metric))]


def lead(results: Results) -> str:
    """What was run, in a sentence for a reader who knows none of it."""
    row = results.rows[0]
    samplers = len({r.sampler for r in results.rows if not r.sampler.startswith(PEER_PREFIX)})
    calls = sorted({r.nfe for r in results.rows})
    texts = [text for text in results.guidance if text != "none"]
    guided = f", under the guidance {' and '.join(texts)}" if texts else ""
    if texts and "none" in results.guidance:
        guided = f", without guidance and {guided.removeprefix(', ')}"
    few = f"{', '.join(map(str, calls[:-1]))} and {calls[-1]}" if len(calls) > 1 else str(calls[0])
    return (
        f"{samplers} sampler{'s' * (samplers > 1)} of the model {row.problem} at {few} network "
        f"call{'s' * (calls != [1])}, {row.n:,} samples each ({seeds_of(results)}){guided}."
    )


def without_reference(results: Results) -> list[str]:
    """A line for each guidance under which no sampler could be compared with a solution.

    Without guidance there is a solution, so that it or all samples were not finite. Sets of images
    that were there already have none, and nobody asks.
    """
    if "calc" in results.settings:
        return []
    lost = (
        "the solution or the samples were not finite, and a warning of the run said in which call"
    )
    guided = (
        "it draws at random or goes by the steps of the solver, so no two samplers are after the "
        f"same solution; or {lost}"
    )
    return [
        f"No RMSE under `{text}`: {lost if text == 'none' else guided}."
        for text in results.guidance
        if not results.metric("rmse", text)
    ]


def summary(results: Results) -> dict[str, str]:
    """Facts by label; what is not known is left out."""
    return {label: text for label, text in _facts(results) if text}


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    env, row = results.env, results.rows[0]
    yield "Problem", row.problem
    yield "Fingerprint", _short(env.get("fingerprint"))
    yield "Samples (N)", f"{row.n:,}" + (f" ({sample_count(row.n)})" if row.n >= 1000 else "")
    yield "Seeds", short(", ".join(dict.fromkeys(r.starts for r in results.rows)))
    yield "Guidance", "; ".join(results.guidance)
    if is_of_features(results):
        extractor, reference = env.get("extractor", {}), env.get("ref", {})
        yield "Extractor", f"{extractor_name(results)} {_short(extractor.get('sha256'))}".strip()
        yield "Protocol", str(extractor.get("protocol") or reference.get("protocol") or "")
        yield "Reference", f"{reference.get('name', '')} {_short(reference.get('hash'))}".strip()
        yield "Reference images", f"{reference['n']:,}" if reference.get("n") else ""
    yield "Device", f"{env.get('device', '')} {env.get('device_name', '')}".strip()
    yield "Threads", str(env.get("threads", ""))
    yield "Versions", ", ".join(f"{name} {env[name]}" for name in VERSIONS if name in env)
    yield "Platform", str(env.get("platform", ""))
    yield "Commit", str(env.get("commit", ""))
    determinism = str(env.get("determinism", ""))
    yield "Determinism", DETERMINISM.get(determinism, determinism)
    yield "Started", results.started
    yield "Run", results.run


def _short(value: Any) -> str:
    return str(value or "")[:SHORT]
