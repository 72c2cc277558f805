"""What each guidance does to samples of the bundled model, at equal cost.

    python notebooks/studies/guidance_study.py --part rows

Parts: ``rows``, all guidance at 20 forward rows a sample; ``gfcg``, GFCG against CFG at its mean
scale; ``minority``, rare samples; ``uncond``, sampling without a class; ``scan``, the settings that
the others were chosen from (``--n 500 --seed 3``). Tables go to ``--out``; an interrupted run goes
on where it was.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from guidance_judges import Figures, Kind, real_images
from guidance_runs import Case, Precision, Store

from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.reports.figures import draw_images
from fewstep.guidance import Interval, parse_guidance
from fewstep.models.data import CLASS_NAMES, to_signed
from fewstep.samplers import build_plan
from fewstep.samplers.core.run import facts

ROWS = 20  # forward rows of a sample in the table of equal cost
EQUAL = (
    "cfg:1.25", "cfg:1.5", "cfg:2", "cfg:3", "cfg:2|project", "cfg:2|rescale",
    "cfg:2|schedule:linear", "icg:1.4", "tsg", "tsg:2.5,0.25", "autoguidance:1.5", "gfcg:2",
    "gfcg:3",
)  # fmt: skip
GATED = (
    "cfg:2|interval:0.3,3", "cfg:2|interval:0.5,5", "icg:1.4|interval:0.3,3",
    "tsg:1.5,0.5|interval:0.3,3", "autoguidance:2|interval:0.3,3",
)  # fmt: skip
SCANNED = (
    "none", "cfg:1.5", "cfg:1.5|interval:0.3,3", "icg:1.4", "icg:1.4|interval:0.3,3",
    "icg:1.4|interval:0.5,20", "tsg:2.5,0.25", "tsg:1.5,0.5|interval:0.3,3",
    "autoguidance:1.5|interval:0.3,3", "autoguidance:1.5|interval:0.5,20",
    "cfg:2|interval:0.3,3", "cfg:2|interval:0.2,1.5", "cfg:2|interval:0.5,5",
    "tsg:1.5,0.5", "tsg:1.5,1", "tsg:1.25,2", "tsg:1.5,1,0", "tsg:2,1|interval:0.3,3",
    "autoguidance:1.5", "autoguidance:2", "autoguidance:3", "autoguidance:2|interval:0.3,3",
    "icg:2", "icg:2|interval:0.3,3",
)  # fmt: skip
GFCG_SCALES = (2.0, 3.0, 5.0)
NOISY = (50, "euler_a")  # calls that a stochastic sampler needs, and the sampler
UNGUIDED = (Case(calls=20), Case("none", *NOISY))
RARE = (
    *(Case(text, 20) for text in ("minority:1", "minority:3.5", "minority:1,0")),
    Case("(cfg:2|interval:0.3,3)+minority:2", 20), Case("minority:5+cfg:2|interval:0.3,3", 20),
    Case("minority:1", *NOISY), Case("selfminority:0.4|every:5", *NOISY),
    Case("none", *NOISY, boost=(2.0, 10.0)),
)  # fmt: skip
RARE_SCANNED = (
    *UNGUIDED,
    *(Case(f"minority:{w}", 20) for w in (1, 2, 3.5, 7)),
    Case("minority:0.5", 20), Case("minority:1", *NOISY), Case("minority:2,80", 20),
    Case("(cfg:2|interval:0.3,3)+minority:1", 20), Case("(cfg:2|interval:0.3,3)+minority:2", 20),
    Case("minority:5+cfg:2|interval:0.3,3", 20), Case("minority:3.5|interval:0.1,5", 20),
    Case("minority:7|interval:0.1,5", 20),
    *(Case(f"minority:{w}", *NOISY) for w in (2, 5)),
    Case("minority:3.5", 25, "dpmpp:tau=1"),
    Case("minority:3.5+cfg:2|interval:0.3,3", 20), Case("(cfg:2|interval:0.3,3)+minority:7", 20),
    *(Case(f"selfminority:{w}|every:5", *NOISY) for w in (0.2, 0.4)),
    Case("selfminority:0.1|every:5", 20),
    *(Case("none", *NOISY, boost=boost) for boost in ((4.0, 4.0), (2.0, 10.0))),
)  # fmt: skip
COLUMNS = {
    "scale": ("mean_scale", ".3f"), "rows": ("rows", ".1f"), "FD": ("fd", ".3f"),
    "FD of pixels": ("fd_pixels", ".2f"), "accuracy": ("accuracy", ".3f"),
    "accuracy, k-NN": ("knn_accuracy", ".3f"), "below 10 %": ("below_10", ".3f"),
    "low, on support": ("low_both", ".3f"), "off": ("off", ".3f"),
    "off, pixels": ("off_pixels", ".3f"), "off, either": ("off_either", ".3f"),
    "AvgkNN": ("avgknn", ".2f"), "LOF": ("lof", ".3f"), "rarity": ("rarity", ".2f"),
    "s": ("seconds", ".0f"),
}  # fmt: skip
QUALITY = ("rows", "FD", "FD of pixels", "accuracy", "accuracy, k-NN", "off, either", "s")
RARITY = ("rows", "below 10 %", "low, on support", "off", "off, pixels", "off, either", "AvgkNN",
          "LOF", "rarity", "FD", "accuracy", "accuracy, k-NN")  # fmt: skip
RUN = "guidance | sampler | calls"
Line = tuple[str, Figures]


def table(lines: Iterable[Line], columns: Iterable[str], heading: str = "guidance") -> str:
    """Markdown; what a line does not have is a dash."""
    chosen = [COLUMNS[name] for name in columns]
    text = [" | ".join(["", heading, *columns, ""]).strip()]
    text.append("|---" * (text[0].count("|") - 1) + "|")
    for title, figures in lines:
        cells = [format(figures[k], form) if k in figures else "-" for k, form in chosen]
        text.append(f"| {' | '.join([title, *cells])} |")
    return "\n".join(text) + "\n"


def calls_within(rows: int, guidance: str, problem: Problem, sampler: str = "dpmpp") -> int:
    """The most calls whose rows are at most so many: two inside the intervals, one outside."""
    found = parse_guidance(guidance, problem.models)
    assert found is not None
    gates = [m for m in found.modifiers() if isinstance(m, Interval)]

    def cost(calls: int) -> int:
        plan = build_plan(sampler, problem.process, calls, found.breakpoints())
        return sum(1 + all(g.holds(v.gate_rho) for g in gates) for v in facts(plan).levels)

    return max(calls for calls in range(rows // 2, rows + 1) if cost(calls) <= rows)


def measured(store: Store, cases: Iterable[Case]) -> list[Line]:
    """A line for each case: what it is, calls and sampler, and its figures."""
    return [(f"{case.title} | {case.sampler} | {case.calls}", store.row(case)) for case in cases]


def real_line(store: Store, title: str = "real images", kind: Kind = "in turn") -> Line:
    return f"{title} | - | -", store.real(kind)


def rows_part(store: Store) -> str:
    """(a) Everything at 20 forward rows a sample."""
    cases = [Case(calls=calls) for calls in (ROWS, ROWS // 2)]
    cases += [Case(text) for text in EQUAL]
    cases += [Case("icg:1.4+tsg:2.5,0.25", ROWS // 3), Case("gfcg:3", weak=True)]
    cases += [Case(text, calls_within(ROWS, text, store.problem)) for text in GATED]
    lines = [real_line(store), *measured(store, cases)]
    return table(lines, QUALITY, RUN)


def gfcg_part(store: Store) -> str:
    """(b) GFCG, and CFG at the mean of its scales over samples and steps."""
    lines: list[Line] = [("unguided", store.row(Case()))]
    for top in GFCG_SCALES:
        case = Case(f"gfcg:{top:g}")
        mine = store.row(case)
        same = Case(f"cfg:{mine['mean_scale']:.3f}")
        lines += [(case.title, mine), (same.title, {**mine, **store.row(same)})]
    return table(lines, ("scale", *QUALITY))


def minority_part(store: Store) -> str:
    """(c) Rare samples, with the shares off support beside them; and pictures of them."""
    cases = [*UNGUIDED, *RARE]
    lines = [real_line(store), real_line(store, "real, the sparsest tenth", "rare")]
    lines += measured(store, cases)
    images, _ = real_images(30, store.seed)
    pictures = {"real": to_signed(images)}
    pictures |= {f"{c.title}, {c.sampler}": to_signed(store.samples(c)[0][:30]) for c in cases}
    draw_images(
        store.folder / "minority.png", pictures, title="the same noise down each column",
        columns=CLASS_NAMES,
    )  # fmt: skip
    return table(lines, RARITY, RUN)


def uncond_part(store: Store) -> str:
    """(d) Without a class, as in TSG's own table; accuracies do not apply."""
    cases = [Case(calls=n, labelled=False) for n in (20, 10)]
    for text in ("tsg:5,1,0|interval:0.72,25", "tsg:1.5,0.5|interval:0.3,3", "tsg:2.5,0.25"):
        cases.append(Case(text, calls_within(ROWS, text, store.problem), labelled=False))
    lines = [real_line(store, "real, classes at random", "at random"), *measured(store, cases)]
    return table(lines, ("rows", "FD", "FD of pixels", "off, either"), RUN)


def scan_part(store: Store) -> str:
    """What the settings above were chosen from."""
    lines = measured(store, [_at_equal_rows(text, store) for text in SCANNED])
    return table(lines, QUALITY, RUN)


def rare_scan_part(store: Store) -> str:
    """The same for rare samples (``--n 300 --seed 3``)."""
    return table(measured(store, RARE_SCANNED), RARITY, RUN)


def _at_equal_rows(text: str, store: Store) -> Case:
    if text == "none":
        return Case(calls=ROWS)
    gated = "interval" in text
    return Case(text, calls_within(ROWS, text, store.problem) if gated else ROWS // 2)


PARTS: dict[str, Callable[[Store], str]] = {
    "scan": scan_part, "rare-scan": rare_scan_part, "rows": rows_part, "gfcg": gfcg_part,
    "minority": minority_part, "uncond": uncond_part,
}  # fmt: skip


def main(
    part: Annotated[str, typer.Option(help=f"comma list of {', '.join(PARTS)}")] = "rows",
    n: Annotated[int, typer.Option(help="samples")] = 1000,
    seed: Annotated[int, typer.Option(help="of the samples")] = 11,
    precision: Annotated[str, typer.Option(help="bfloat16 or float32 products")] = "bfloat16",
    out: Annotated[Path, typer.Option(help="folder")] = Path("runs/guidance_study"),
) -> None:
    """Prints and writes the tables of the parts that were asked for."""
    asked = part.split(",")
    if unknown := [name for name in asked if name not in PARTS]:
        raise typer.BadParameter(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    if precision not in ("bfloat16", "float32"):
        raise typer.BadParameter(f"precision must be bfloat16 or float32, got {precision!r}")
    store = Store(out, load_problem("fashion"), n, seed, cast(Precision, precision))
    for name in asked:
        text = PARTS[name](store)
        (out / f"{name}-{n}-{seed}.md").write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    typer.run(main)
