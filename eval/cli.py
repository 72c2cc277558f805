"""The command line: ``fewstep bench``, ``sample``, ``list``, ``plan``, ``overhead``, ``doctor``.

torch and the samplers are imported inside the commands, so that ``--help`` stays instant. Mistakes
of the user end as one line on stderr and exit status 2.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep import __version__
from fewstep.eval.cli_calc import calc, convert, export, ref, verify
from fewstep.eval.cli_gen import gen
from fewstep.eval.cli_report import report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Sampling diffusion models in few steps.",
    epilog="Begin with `fewstep bench` (minutes) or `fewstep sample --nfe 8` (seconds).",
)
Specs = Annotated[
    list[str] | None,
    typer.Option(
        "--samplers", "-s", metavar="SPEC",
        help="Spec, saved plan (.json), `dopri5` or `all`; repeatable, or several in one value "
        "separated by `;` or spaces. Default: one of each family.",
    ),
]  # fmt: skip
GUIDANCE_HELP = (
    "`none`, or parts as in `cfg:3`, `cfg:3|interval:0.2,2`, `(icg:1.4|interval:0.28,2.9)+tsg`; "
    "see `fewstep list`."
)
Guidance = Annotated[str, typer.Option("--guidance", "-g", metavar="TEXT", help=GUIDANCE_HELP)]
Guidances = Annotated[
    list[str] | None,
    typer.Option(
        "--guidance", "-g", metavar="TEXT",
        help=f"{GUIDANCE_HELP} Repeatable, or several in one value separated by `;`: each sampler "
        "runs under each. Default: `none`.",
    ),
]  # fmt: skip
Model = Annotated[
    str,
    typer.Option(
        "--model", "--problem", "-m", metavar="NAME",
        help="Of `fewstep list`, a diffusers pipeline (folder or hub id), or `module:function`.",
    ),
]  # fmt: skip
Metrics = Annotated[
    str, typer.Option(help="Comma list of `fd`, `kid`, `prdc`, `sw2`, `fd_infinity`, `exact`.")
]
Weights = Annotated[Path | None, typer.Option(help="Of the extractor; searched for if left out.")]
Prompts = Annotated[
    Path | None, typer.Option(help="Texts, one a line, for a model that takes text.")
]
Dtype = Annotated[str, typer.Option(help="Of a pipeline: `float32`, `float16`, `bfloat16`.")]
Device = Annotated[str, typer.Option(help="`auto` (CUDA if there is one), `cpu`, `cuda`, `mps`.")]
Seed = Annotated[int, typer.Option(help="Of the starting noise.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fewstep {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def bench(
    context: typer.Context,
    sweep: Annotated[
        Path | None,
        typer.Argument(help="YAML file of these options by name; those given here count more."),
    ] = None,
    samplers: Specs = None,
    nfe: Annotated[str, typer.Option(help="Network calls, a comma list.")] = "5,8,10,20",
    # torchrun takes --n for the beginning of an option of its own.
    n: Annotated[int, typer.Option("--n", "--count", help="Samples, at least 2.")] = 512,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(help="Runs, each with the next seed.")] = 1,
    guidance: Guidances = None,
    problem: Model = "fashion",
    metrics: Metrics = "fd",
    extractor: Annotated[
        str | None, typer.Option(help="`inception`, `inception:clean`, ...; needs `--ref`.")
    ] = None,
    ref: Annotated[str | None, typer.Option(help="Statistics of `fewstep ref`.")] = None,
    weights: Weights = None,
    prompts: Prompts = None,
    dtype: Dtype = "float32",
    peers: Annotated[
        str, typer.Option(help="`none`, or `diffusers`: every class there, on up to six grids.")
    ] = "none",
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("runs/bench"),
    device: Device = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print calls, disk, memory and time; sample nothing.")
    ] = False,
) -> None:
    """Scores samplers against the fine solution from the same noise, and writes a report.

    A run that was stopped goes on where it ended. Under torchrun or `accelerate launch`, each
    process takes its share.

    Example: `fewstep bench --problem mix8 --peers diffusers --samplers "unipc;deis:order=2"`

    Example: `fewstep bench --nfe 5,10,20 --guidance "none;cfg:3" --guidance "gfcg:2"`

    Example: `fewstep bench runs/bench/sweep.yaml --n 5000 --metrics fd,kid --dry-run`
    """
    from fewstep.eval.commands import run_and_report
    from fewstep.eval.estimate import show_estimate
    from fewstep.eval.sweeps import read_sweep

    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    given.pop("dry_run", None)
    settings = read_sweep(given.pop("sweep", None), given)
    if dry_run:
        show_estimate(settings)
    else:
        run_and_report(settings)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


@app.command()
def sample(
    classes: Annotated[str, typer.Option(help="Comma list of 0-9, or `all`.")] = "all",
    n: Annotated[int, typer.Option("--n", help="Images.")] = 80,
    seed: Seed = 0,
    sampler: Annotated[str, typer.Option(help="Spec or saved plan.")] = "ipndm",
    nfe: Annotated[int, typer.Option(help="Network calls.")] = 10,
    guidance: Guidance = "none",
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("samples.png"),
    device: Device = "auto",
) -> None:
    """Draws Fashion-MNIST images with the bundled model into one PNG, a column for each class.

    Example: `fewstep sample --classes 1,7,9 --n 30 --nfe 8 --guidance cfg:2`
    """
    from fewstep.eval.commands import Drawing, draw

    picked = tuple(range(10)) if classes == "all" else _numbers("--classes", classes)
    draw(Drawing(picked, n, seed, sampler, nfe, guidance, device), out)


@app.command("list")
def list_() -> None:
    """Lists samplers and guidance with their options and papers; grids; problems."""
    from fewstep.eval.lists import show_lists

    show_lists()


@app.command()
def plan(
    spec: Annotated[str, typer.Argument(help="As in `dpmpp:order=3,grid=karras`.")],
    nfe: Annotated[int, typer.Option(help="Network calls.")] = 10,
    process: Annotated[
        str, typer.Option(help="`vp-linear`, `vp-scaled`, `vp-cosine`, `edm` or `flow`.")
    ] = "vp-linear",
    problem: Annotated[str | None, typer.Option(help="Take this problem's process.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan as JSON.")] = None,
) -> None:
    """Prints a sampler as the table of numbers that it is.

    Example: `fewstep plan unipc:order=2 --nfe 8 --process flow --save unipc8.json`
    """
    from fewstep.eval.commands import show_plan

    show_plan(spec, nfe, process, problem, save)


@app.command()
def overhead(
    repeats: Annotated[int, typer.Option(help="Runs of each schedule; medians are shown.")] = 15,
) -> None:
    """Times a `step()` of our schedulers beside diffusers', and guidance beside its network."""
    from fewstep.eval.guided_overhead import show_guided_overhead
    from fewstep.eval.overhead import show_overhead

    if repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {repeats}")
    show_overhead(repeats)
    show_guided_overhead(repeats)


@app.command()
def doctor() -> None:
    """Checks versions, device, bundled weights, dataset and cache."""
    from fewstep.eval.doctor import show_health

    raise typer.Exit(0 if show_health() else 1)


app.command()(gen)
app.command()(report)
for _command in (ref, calc, verify, export, convert):
    app.command()(_command)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} takes whole numbers separated by commas, got {text!r}"
        ) from None


def _fail(message: str, status: int = 2) -> None:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(status)


def _show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; set ``FEWSTEP_DEBUG=1`` to see tracebacks.

    Raises:
        SystemExit: always; status 0, 1 (unhealthy), 2 (user error), 3 (a
            feature extractor cannot be had here) or 130 (interrupted).
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = app(args=arguments, prog_name="fewstep", standalone_mode=False)
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("FEWSTEP_DEBUG"):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        message = f"{reason}: {getattr(error, 'filename', '')}" if reason else str(error)
        _fail(message, getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception as error:
        # typer's own usage errors: of click's class, or of a copy of click in recent versions.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        _fail(f"{describe()} See fewstep --help.")
    if status == 130:
        print("interrupted; what is finished is kept", file=sys.stderr)
    raise SystemExit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
