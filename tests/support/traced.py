"""Where a call goes: the files of the package whose functions it runs, one after the other."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("samplers", "schedules", "guidance", "models", "eval", "src")


def trip(call: Callable[[], object]) -> list[str]:
    """The file of every function that ``call`` calls, relative to the repository; imports left out.

    Functions of one file after each other count once. The files that are visited are the set of
    these. Let the same run once before: the first time imports what is loaded late.
    """
    places: dict[str, str | None] = {}
    files: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_name == "<module>":
            return
        if code.co_filename not in places:
            path = Path(code.co_filename).resolve()
            ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in TOPS
            places[code.co_filename] = path.relative_to(ROOT).as_posix() if ours else None
        place = places[code.co_filename]
        if place is not None and files[-1:] != [place]:
            files.append(place)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before)
    return files
