"""The command line: a function for each command, and how it ends.

torch and the samplers are imported inside the commands, so that ``--help`` stays instant. Mistakes
of the user end as one line on stderr and exit status 2.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from fewstep import __version__
from fewstep.eval.cli.basic import doctor, list_, overhead, plan, sample
from fewstep.eval.cli.bench import bench
from fewstep.eval.cli.calc import calc, convert, export, ref, verify
from fewstep.eval.cli.gen import gen
from fewstep.eval.cli.report import report
from fewstep.eval.cli.stopping import Left, Stop, leave
from fewstep.eval.cli.streams import UNREAD, drop_output, is_unread, output_is_lost, prepare
from fewstep.eval.cli.tune import tune

INTERRUPTED = "interrupted; what is finished is kept"


class Command(TyperCommand):
    """A command whose options of one value are given once: of two values one would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As in typer.

        Raises:
            ValueError: for an option of one value that is there twice, under whatever names.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            single = not (getattr(option, "multiple", False) or option.is_eager)
            if single and option.param_type_name == "option" and given.count(option) > 1:
                names = "/".join((*option.opts, *option.secondary_opts))
                raise ValueError(
                    f"{names} is given {given.count(option)} times and takes one value: leave "
                    f"{given.count(option) - 1} out"
                )
        return super().parse_args(ctx, args)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # tables of help would cut long names and values on narrow terminals
    context_settings={"max_content_width": 120},
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
                 overhead, doctor, list_):  # fmt: skip
    # Spelled out, the first sentence of each is not cut in the list of commands.
    _first = " ".join((_command.__doc__ or "").strip().split("\n\n")[0].split())
    app.command(_command.__name__.rstrip("_"), cls=Command, short_help=_first)(_command)


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
    # A run outlives its log, as in Python's own way to show warnings.
    with suppress(OSError):
        print(f"warning: {message}", file=sys.stderr)


def _leave_unread() -> NoReturn:
    """Ends in silence, as other programs do when the reader of their output is gone."""
    drop_output()
    raise SystemExit(UNREAD)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; set ``FEWSTEP_DEBUG=1`` to see tracebacks.

    Raises:
        SystemExit: always; status 0, 1 (unhealthy, or does not verify), 2 (a mistake of the
            user's, or of a model's code), 3 (a feature extractor cannot be had here), 130
            (interrupted), 141 (nobody reads the output any more) or 143 (terminated).
    """
    prepare()
    given, stop = list(sys.argv[1:] if arguments is None else arguments), Stop()
    try:
        _refuse_empty(given)
        with warnings.catch_warnings(), stop.heard():
            warnings.showwarning = _show_warning
            status = app(args=given, prog_name="fewstep", standalone_mode=False)
            sys.stdout.flush()
    except (ValueError, TypeError, OSError) as error:
        if stop.among_others:
            leave(INTERRUPTED, stop.number)
        if is_unread(error):
            _leave_unread()
        if os.environ.get("FEWSTEP_DEBUG"):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        where = getattr(error, "filename", None)
        if reason and where is None and output_is_lost():
            where = "standard output"
        message = f"{reason}: {where}" if reason and where else reason or str(error)
        message = "; ".join((message, *getattr(error, "__notes__", ())))
        _fail(message, getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except SystemExit as left:
        if isinstance(left, Left):
            raise
        if is_unread(left):
            _leave_unread()
        # A model that ends the program must not end it as if all was done.
        _fail(
            f"code that was run ended the program (SystemExit with {left.code}), a model's most "
            "likely: take sys.exit and exit out of it"
        )
    except Exception as error:
        if stop.among_others:
            leave(INTERRUPTED, stop.number)
        # typer's own usage errors: of click's class, or of a copy of click in recent versions.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        _fail(f"{describe()} See fewstep --help.")
    if status == 130:  # typer makes it of an interrupt
        leave(INTERRUPTED, stop.number)
    raise SystemExit(status if isinstance(status, int) else 0)
