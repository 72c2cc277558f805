"""``fewstep report``: reports again, or of several folders together."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.eval.common.paths import check_folder_name
from fewstep.progress import Progress


def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of `fewstep bench`.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write to. Default: the folder itself."),
    ] = None,
) -> None:
    """Makes a report again from `results.jsonl`, or one of the newest runs of several folders.

    Folders whose numbers depend on different things (samples, model, seeds, extractor, reference)
    are refused.

    Example: `fewstep report runs/bench`

    Example: `fewstep report runs/ours runs/theirs -o runs/both`
    """
    with Progress.shown("report") as progress:
        _report(folders, out, progress)


def _report(folders: list[Path], out: Path | None, progress: Progress) -> None:
    from fewstep.eval.reports.lines import LINES
    from fewstep.eval.reports.merging import merged, newest
    from fewstep.eval.reports.report import rebuild, write_report

    if len(folders) == 1 and out in (None, folders[0]) and (folders[0] / LINES).exists():
        rebuild(folders[0])
        progress.close()
        _tell(folders[0])
        return
    if len(folders) > 1 and out is None:
        raise ValueError("several folders need --out, the folder of their report")
    if out is not None:
        check_folder_name(out, "--out")
    found = {str(folder): newest(folder) for folder in folders}
    results = merged(found) if len(found) > 1 else found[str(folders[0])]
    target = out or folders[0]
    write_report(results, target)
    progress.close()
    _tell(target)


def _tell(folder: Path) -> None:
    typer.echo(f"report: {folder / 'report.html'}, pictures and tables beside it")
    typer.echo(f"next: open {folder / 'report.html'} in a browser")
