"""Which rows of a report may stand in one table.

Samplers are compared on the same starting noise, so that luck is common to all. Rows that differ in
their seeds only are repeats of one sampler, if every sampler has them; otherwise a mean over more
seeds would stand beside one over fewer, and a difference could be that of the seeds.
"""

from dataclasses import replace

from fewstep.eval.common.amounts import shortened
from fewstep.eval.reports.results import Results

SEPARATE = (
    "Not all samplers ran from the same seeds. Each set of seeds has tables of its own below: "
    "scores of different seeds differ by chance, too, and their pictures show different samples."
)
LONGEST = 48


def parts(results: Results) -> list[Results]:
    """The results themselves if every point has the same seeds, else one part for each seeds."""
    seeds: dict[tuple[str, str, int], set[str]] = {}
    for row in results.rows:
        seeds.setdefault((row.guidance, row.sampler, row.nfe), set()).add(row.starts)
    if len({frozenset(found) for found in seeds.values()}) < 2:
        return [results]
    each = dict.fromkeys(row.starts for row in results.rows)
    return [_only(results, starts, part) for part, starts in enumerate(each, 1)]


def _only(results: Results, starts: str, part: int) -> Results:
    shown = {key for key in results.images if key[3] in ("", starts)}
    return replace(
        results,
        rows=[row for row in results.rows if row.starts == starts],
        images={key: images for key, images in results.images.items() if key in shown},
        labels={key: names for key, names in results.labels.items() if key in shown},
        part=part,
    )


def seeds_of(results: Results) -> str:
    """``seed 0``, ``seeds 0, 1``, or ``seeds 0-63``; what is long is cut."""
    texts = list(dict.fromkeys(row.starts for row in results.rows))
    joined = (" and " if any(row.seeds for row in results.rows) else ", ").join(texts)
    several = len(texts) > 1 or not texts[0].isdigit()
    return f"seed{'s' * several} {short(joined)}"


def short(text: str) -> str:
    """The text, or its beginning and dots if it is long."""
    return shortened(text, LONGEST)
