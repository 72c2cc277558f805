"""Options that several commands have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

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


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def refuse_given(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Raises ValueError for an option that nothing would read."""
    for name in names:
        if is_given(context, name):
            raise ValueError(f"--{name.replace('_', '-')} has no effect {why}: leave it out")
