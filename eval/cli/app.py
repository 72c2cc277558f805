"""The command line: a function for each command, and how it ends.

torch and the samplers are imported inside the commands, so that ``--help`` stays instant. Mistakes
of the user end as one line on stderr and exit status 2.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from fewstep import __version__
from fewstep.eval.cli.basic import doctor, list_, overhead, plan, sample
from fewstep.eval.cli.bench import bench
from fewstep.eval.cli.calc import calc, convert, export, ref, verify
from fewstep.eval.cli.gen import gen
from fewstep.eval.cli.report import report
from fewstep.eval.cli.tune import tune

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Sampling diffusion models in few steps.",
    epilog="Begin with `fewstep bench` (minutes) or `fewstep sample --nfe 8` (seconds).",
)


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


for _command in (bench, sample, plan, tune, gen, ref, calc, verify, export, convert, report,
                 overhead, doctor):  # fmt: skip
    app.command()(_command)
app.command("list")(list_)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raises ValueError for an empty text: as a path it would be the folder that we stand in."""
    for before, text in zip(("", *arguments), arguments, strict=False):
        name, equals, value = text.partition("=")
        option, given = (name, value) if equals and name.startswith("--") else (before, text)
        if not given.strip():
            where = f"for {option}" if option.startswith("-") else "among the arguments"
            raise ValueError(
                f"got an empty text {where}: give a value, or leave it out (an empty variable of "
                "the shell, perhaps)"
            )


def _fail(message: str, status: int = 2) -> None:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(status)


def _show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; set ``FEWSTEP_DEBUG=1`` to see tracebacks.

    Raises:
        SystemExit: always; status 0, 1 (unhealthy, or does not verify), 2 (a mistake of the
            user's, or of a model's code), 3 (a feature extractor cannot be had here) or 130
            (interrupted).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _refuse_empty(given)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = app(args=given, prog_name="fewstep", standalone_mode=False)
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("FEWSTEP_DEBUG"):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        where = getattr(error, "filename", None)
        message = f"{reason}: {where}" if reason and where else reason or str(error)
        _fail(message, getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except SystemExit as left:
        # Of ours there is that of an interruption alone. A model that ends the program must not
        # end it as if all was done.
        if left.code != 130:
            _fail(
                f"code that was run ended the program (SystemExit with {left.code}), a model's "
                "most likely: take sys.exit and exit out of it"
            )
        raise
    except Exception as error:
        # typer's own usage errors: of click's class, or of a copy of click in recent versions.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        _fail(f"{describe()} See fewstep --help.")
    if status == 130:
        print("interrupted; what is finished is kept", file=sys.stderr)
    raise SystemExit(status if isinstance(status, int) else 0)
