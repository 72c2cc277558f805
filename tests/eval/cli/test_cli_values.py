"""Every option of every command at values that nobody means: one line, and never a traceback."""

import shutil
from pathlib import Path

import pytest
from command_line import call

VALUES = ("", " ", "-1", "0", "1e300", "1e-300", "nan", "inf", "x", "[", "a;b", "/dev/null", "\0",
          "dir", "bad.json", "bad.yaml")  # fmt: skip
# Good values beside the one that is tried; options without one are only tried.
COMMANDS: dict[str, tuple[tuple[str, ...], dict[str, str | None]]] = {
    "plan": (("ddim",), {"--nfe": "4", "--process": "flow", "--problem": "mix8-flow",
                         "--save": "p.json", "--plot": "p.png"}),
    "gen": ((), {"-s": "ddim", "--nfe": "1", "--model": "mix8", "--seeds": "0-3",
                 "--guidance": "none", "--classes": "uniform", "--unit": "4", "--keep": "images",
                 "--extractor": None, "--weights": None, "--prompts": None, "--dtype": "float32",
                 "--device": "cpu", "--out": "g"}),
    "bench": ((), {"-s": "ddim", "--nfe": "2", "--n": "4", "--seed": "0", "--repeats": "1",
                   "--guidance": "none", "--problem": "mix8", "--metrics": "fd",
                   "--extractor": None, "--ref": None, "--weights": None, "--prompts": None,
                   "--dtype": "float32", "--peers": "none", "--out": "b", "--device": "cpu"}),
    "tune": ((), {"--out": "t.json", "--nfe": "2", "--problem": "mix8", "--guidance": "none",
                  "--family": "least-squares", "--objective": "sample", "--features": None,
                  "--minutes": "0.01", "--seed": "0", "--noises": "2,2,2", "--prompts": None,
                  "--dtype": "float32", "--device": "cpu"}),
    "ref": (("dir",), {"--out": "r.npz", "--extractor": "pixels:1x4x4", "--features": None,
                       "--batch": None, "--weights": None, "--on-error": None}),
    "calc": (("dir",), {"--ref": "r.npz", "--metrics": "fd", "--extractor": "pixels:1x4x4",
                        "--out": None}),
    "verify": (("dir",), {"--recompute": None, "--seed": None, "--weights": None}),
    "export": (("dir", "x.npz"), {}),
    "convert": (("r.npz", "o.pkl"), {"--metric": None}),
    "report": (("dir",), {}),
}  # fmt: skip
SLOW = ("gen", "bench", "tune", "plan")  # some of their runs are good ones


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in COMMANDS],
)
def test_one_line_for_every_value(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words, options = COMMANDS[command]
    good = {name: value for name, value in options.items() if value is not None}
    for name in (*options, *range(len(words))):
        for value in VALUES:
            folder = tmp_path / "work"
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "dir").mkdir(parents=True)
            (folder / "bad.json").write_text("{")
            (folder / "bad.yaml").write_text("a: [")
            monkeypatch.chdir(folder)
            given = {**good, name: value} if isinstance(name, str) else good
            placed = [value if i == name else word for i, word in enumerate(words)]
            status = call(command, *placed, *(part for pair in given.items() for part in pair))
            errors = [
                line for line in capsys.readouterr().err.splitlines()
                if not line.startswith("warning: ")
            ]  # fmt: skip
            assert status in (0, 1, 2, 3), (name, value)
            if status >= 2:
                assert len(errors) == 1, (name, value)
                assert len(errors[0]) > len("error: "), (name, value)


def test_nothing_to_run_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    empty = "got an empty text for -s"
    for text, told in (("", empty), (" ", empty), (";", "samplers is empty; write unipc")):
        assert call("bench", "--problem", "mix8", "-s", text) == 2
        assert told in capsys.readouterr().err
