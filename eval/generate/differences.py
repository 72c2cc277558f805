"""How two settings differ, as text."""

import json
from pathlib import Path
from typing import Any

from fewstep.eval.cache import digest


def difference(path: Path, there: dict[str, Any], now: dict[str, Any]) -> str:
    """The message for a folder of settings ``there`` that settings ``now`` were meant for."""
    keys = [key for key in {**there, **now} if there.get(key) != now.get(key)]
    lines = [f"  {_line(key, there.get(key), now.get(key))};" for key in keys]
    # Launchers and the number of processes change it, and nobody sees them do so.
    threads = f" (OMP_NUM_THREADS={there.get('threads')})" if "threads" in keys else ""
    return "\n".join(
        [f"{path} was made with other settings:", *lines,
         f"go on with those settings{threads}, use another folder, or delete this one"]
    )  # fmt: skip


def _line(key: str, there: Any, now: Any) -> str:
    """One setting; of two lists, what differs first."""
    if isinstance(there, list) and isinstance(now, list):
        first = next((i for i, (a, b) in enumerate(zip(there, now, strict=False)) if a != b), None)
        place = min(len(there), len(now)) if first is None else first
        key = f"{key}[{place}]"
        texts = [_short(value[place]) if place < len(value) else "none" for value in (there, now)]
        return f"{key}: {texts[0]} there, {texts[1]} now"
    return f"{key}: {_short(there)} there, {_short(now)} now"


def _short(value: Any) -> str:
    text = json.dumps(value)
    # The ends of two values may differ: the hash tells that they do.
    return text if len(text) <= 70 else f"{text[:50]}... (sha256 {digest([text])[:8]})"
