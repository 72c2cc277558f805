"""What ``fewstep plan`` shows: a plan, and of a tuned one the plan that it came from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewstep.eval.cli.entries import PROCESSES
from fewstep.eval.cli.next_steps import command, next_line
from fewstep.eval.common.folders import all_or_nothing, check_writable
from fewstep.eval.common.text import print_table
from fewstep.eval.problems import PROBLEMS
from fewstep.eval.problems.tuned_plans import warn_other_model
from fewstep.eval.reports.plan_numbers import nodes, step_weights
from fewstep.samplers import Plan, build_plan
from fewstep.samplers.core.plan import load_plan
from fewstep.samplers.solvers.registry import check_process, names_file
from fewstep.schedules import NoiseProcess

DEFAULT_CALLS, DEFAULT_PROCESS = 10, "vp-linear"  # of a spec


def show_plan(
    spec: str,
    nfe: int | None,
    process: str | None,
    problem: str | None,
    save: Path | None,
    plot: Path | None,
) -> None:
    """Prints a plan, a tuned one with its provenance and beside its start; saves and draws it.

    Args:
        spec: of a sampler, or the path of a plan.
        nfe: network calls; None takes 10 for a spec, and the one plan of a file.
        process, problem: which noise process, by one of them. With a file it is checked.
        save: a JSON file to write the plan to.
        plot: a PNG file to draw it in.

    Raises:
        ValueError: for what does not fit, and a path of another kind.
        FileNotFoundError: without a file.
    """
    if process is not None and problem is not None:
        raise ValueError(
            f"--process {process} and --problem {problem} both say the noise process: leave one out"
        )
    for path, suffix, option in ((save, ".json", "--save"), (plot, ".png", "--plot")):
        if path is not None and (path.suffix != suffix or path.is_dir()):
            raise ValueError(f"{option} must name a {suffix} file, got {path}")
    plan = _plan(spec, nfe, process, problem)
    tuned = plan.provenance.get("tuned")
    shown = {"tuned" if tuned else plan.name: plan, **_start(tuned or {})}
    if save is not None:
        check_writable(save.parent)
        with all_or_nothing(save.parent) as folder:
            plan.save(folder / save.name)
    if plot is not None:
        from fewstep.eval.reports.plan_plots import draw_plans

        check_writable(plot.parent)
        with all_or_nothing(plot.parent) as folder:
            draw_plans(folder / plot.name, shown, f"{plan.name}, {plan.calls} calls")
    print(plan)
    for line in _about(plan):
        print(line)
    if tuned:
        _show_tables(shown)
        print("--plot PATH.png draws both" if plot is None else f"picture: {plot}")
    elif plot is not None:
        print(f"picture: {plot}")
    if save is not None:
        print(f"plan: {save}")
        where = () if problem is None else ("--problem", problem)
        if problem is not None or process in (None, DEFAULT_PROCESS):  # that of bench's own problem
            print(next_line(command("fewstep", "bench", "-s", save, "--nfe", plan.calls, *where)))


def _plan(spec: str, nfe: int | None, process: str | None, problem: str | None) -> Plan:
    if problem in PROBLEMS and not names_file(spec):  # whose process needs no network
        return build_plan(spec, PROBLEMS[problem].process(), DEFAULT_CALLS if nfe is None else nfe)
    known = None
    if problem is not None:
        from fewstep.eval.problems import load_problem  # it imports torch

        known = load_problem(problem)
    told = known.process if known is not None else _process(process or DEFAULT_PROCESS)
    if not names_file(spec):
        return build_plan(spec, told, DEFAULT_CALLS if nfe is None else nfe)
    plan = load_plan(spec, nfe)
    if process is not None or known is not None:
        check_process(plan, told, spec)
    if known is not None:
        warn_other_model(plan, known.fingerprint)
    return plan


def _process(name: str) -> NoiseProcess:
    if name not in PROCESSES:
        raise ValueError(f"unknown process {name!r}; known: {', '.join(PROCESSES)}")
    return PROCESSES[name]()


def _start(tuned: Mapping[str, Any]) -> dict[str, Plan]:
    """The plan that tuning began with, by its name."""
    start = tuned.get("start") or {}
    if "plan" not in start:
        return {}
    return {f"start {start.get('spec', '')}".strip(): Plan.from_table(start["plan"])}


def _about(plan: Plan) -> Iterator[str]:
    """Lines on where a plan comes from; nothing for one of a spec."""
    if "landing" in plan.provenance:
        above = f", after {plan.history} rows that it answers" if plan.history else ""
        yield f"starts from a Gaussian at sigma/alpha = {plan.provenance['landing']:.4g}{above}"
    tuned = plan.provenance.get("tuned")
    if not tuned:
        return
    yield (
        f"tuned for {tuned.get('problem')} (model {str(tuned.get('model'))[:8]}), guidance "
        f"{tuned.get('guidance')}, {plan.calls} calls: family {tuned.get('family')}, predicts "
        f"{tuned.get('prediction_type')}, fewstep {tuned.get('version')}"
    )
    if objective := tuned.get("objective"):
        yield "objective: " + ", ".join(f"{key} {value}" for key, value in objective.items())
    seeds, noises = tuned.get("seeds") or {}, tuned.get("noises") or {}
    if seeds or noises:
        purposes = [key for key in ("tune", "select", "report") if key in {**seeds, **noises}]
        parts = [f"{noises.get(k, '?')} to {k} (seed {seeds.get(k, '?')})" for k in purposes]
        yield "noises: " + ", ".join(parts)
    yield from _errors(tuned)
    if "seconds" in tuned:
        calls = f", {tuned['calls']:.4g} calls a tuning noise" if "calls" in tuned else ""
        yield f"tuned in {tuned['seconds']:.0f} s{calls}"


def _errors(tuned: Mapping[str, Any]) -> Iterator[str]:
    error = {key: value for key, value in (tuned.get("error") or {}).items() if value is not None}
    told = []
    for name in ("report", "select"):
        if name in error:
            before = error.get(f"{name}_before")
            was = f", {before:.3g} before" if before is not None else ""
            told.append(f"{error[name]:.3g} to {name}{was}")
    told += [f"{error[key]:.3g} {words}" for key, words in
             (("tune", "to tune"), ("teacher", "of the teacher")) if key in error]  # fmt: skip
    if told:
        yield "error on the noises: " + "; ".join(told)
    fixed: dict[int, tuple[float, str]] = {}
    for spec, found in (tuned.get("fixed") or {}).items():
        for calls, value in found.items():
            fixed[int(calls)] = min(fixed.get(int(calls), (float("inf"), "")), (value, spec))
    for calls, (value, spec) in sorted(fixed.items()):
        yield f"best fixed sampler at {calls} calls: {value:.3g}, {spec}"


def _show_tables(plans: Mapping[str, Plan]) -> None:
    tables = [_node_table(plans)]
    for name, plan in plans.items():
        try:
            tables.append(_weight_table(name, plan))
        except ValueError as error:
            print(error)
    for table in tables:
        print_table(table)


def _node_table(plans: Mapping[str, Plan]) -> Table:
    """Times and levels of each call, a pair of columns for each plan."""
    table = Table(box=SIMPLE_HEAD, title="calls", title_justify="left")
    table.add_column("call", justify="right")
    held = {name: {node.name: node for node in nodes(plan)} for name, plan in plans.items()}
    for name in plans:
        table.add_column(f"{escape(name)}\ntime", justify="right")
        table.add_column("\nsigma/alpha", justify="right")
    for call in sorted({int(key) for entries in held.values() for key in entries}):
        row = []
        for entries in held.values():
            node = entries.get(str(call))
            row += ["", ""] if node is None else [f"{node.time:.4g}", f"{node.rho:.4g}"]
        table.add_row(str(call), *row)
    ends = [plan.sigmas(native=False)[-1] for plan in plans.values()]
    table.add_row("end", *(cell for end in ends for cell in ("", f"{end:.4g}")))
    return table


def _weight_table(name: str, plan: Plan) -> Table:
    """The weights of the data predictions in each step."""
    title = f"weights of the data predictions, {name}"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("step", justify="right")
    for node in nodes(plan):
        table.add_column(f"D {node.name}", justify="right")
    for i, row in enumerate(step_weights(plan)):
        used = row[: plan.history + i + 1]
        table.add_row(str(i), *(f"{weight:.3f}" for weight in used))
    return table
