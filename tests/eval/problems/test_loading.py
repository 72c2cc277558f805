"""Problems by import path, and one clear line for whatever cannot be loaded."""

import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from fewstep.eval.cli import main
from fewstep.eval.problems import PROBLEMS, Problem, load_problem

OWN = '''
"""Problems of a user."""
import torch
from helping import SHAPE

from fewstep.eval.problems import Problem
from fewstep.models import CallableDenoiser, DiffusersDenoiser, EDMDenoiser, MixtureDenoiser
from fewstep.schedules import VE, discrete_vp

torch.manual_seed(0)
NUMBER = 3
asked = []


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))

    def forward(self, x, t, labels):
        return x * self.scale.float().mean()


def exact():
    asked.append("nothing")
    denoiser = MixtureDenoiser(discrete_vp("linear"), torch.zeros(2, 4), 1.0)
    return Problem("own", denoiser, (4,), "zeros")


def placed(device):
    asked.append(device)
    problem = exact()
    return Problem("own", problem.denoiser, (4,), "zeros", device=device)


def network():
    denoiser = EDMDenoiser(Net(), VE(), null_class=3, num_classes=3)
    denoiser.shape = list(SHAPE)
    return denoiser


def changed():
    denoiser = network()
    denoiser.net.scale.data[1] += 1
    return denoiser


def setting(kind, **settings):
    denoiser = kind(Net(), VE(), **settings)
    denoiser.shape = SHAPE
    return denoiser


edm_2 = lambda: setting(EDMDenoiser, null_class=2)
edm_3 = lambda: setting(EDMDenoiser, null_class=3)
x0 = lambda: setting(CallableDenoiser)
eps = lambda: setting(CallableDenoiser, prediction_type="epsilon")
level = lambda: setting(CallableDenoiser, passes="level")
plain = lambda: setting(DiffusersDenoiser)
scaled = lambda: setting(DiffusersDenoiser, time_scale=0.001)
zeros = lambda: setting(DiffusersDenoiser, uncond={"text": torch.zeros(1, 3)})
ones = lambda: setting(DiffusersDenoiser, uncond={"text": torch.ones(1, 3).bfloat16()})


def function():
    denoiser = CallableDenoiser(lambda x, t: 0 * x, discrete_vp("linear"))
    denoiser.shape = SHAPE
    return denoiser


def needy(device, size):
    return exact()


def failing():
    return {}["weights"]


def bare():
    return Net()


def shapeless():
    return EDMDenoiser(Net(), VE())


def sized(shape, count=0):
    denoiser = EDMDenoiser(Net(), VE())
    denoiser.shape, denoiser.num_classes = shape, count
    return denoiser


letters = lambda: sized("abc")
one_number = lambda: sized(4)
no_size = lambda: sized(())
empty_size = lambda: sized((0,))
halves = lambda: sized((1, 2.5))
counted_in_words = lambda: sized((4,), "ten")
below_none = lambda: sized((4,), -1)
empty_problem = lambda: Problem("own", exact().denoiser, (4, 0), "zeros")


problem = exact()
model = network()
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with code of a user."""
    (tmp_path / "own_models.py").write_text(OWN)
    (tmp_path / "helping.py").write_text("SHAPE = (1, 4, 4)\n")
    (tmp_path / "broken.py").write_text("import torch\nimport not_installed\n")
    (tmp_path / "raising.py").write_text("raise RuntimeError('no\\nweights')\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("own_models", "helping", "broken", "raising", "_fewstep_own_models"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("place", ["own_models", "own_models.py", "PATH/own_models.py"])
def test_attributes_and_functions(place: str, folder: Path) -> None:
    place = place.replace("PATH", str(folder))
    searched = list(sys.path)
    for attribute in ("problem", "exact", "placed"):
        problem = load_problem(f"{place}:{attribute}")
        assert isinstance(problem, Problem)
        assert (problem.name, problem.shape, problem.exact) == ("own", (4,), True)
        assert torch.equal(problem.images(torch.ones(2, 4)), torch.ones(2, 4))
        assert problem.image_shape == (4,)
    module = sys.modules["own_models" if place == "own_models" else "_fewstep_own_models"]
    assert module.asked[-2:] == ["cpu", "nothing"]
    assert sys.path == searched


@pytest.mark.parametrize("attribute", ["network", "model"])
def test_a_denoiser_becomes_a_problem(attribute: str, folder: Path) -> None:
    problem = load_problem(f"own_models:{attribute}")
    assert (problem.name, problem.shape) == (f"own_models:{attribute}", (1, 4, 4))
    assert (problem.num_classes, problem.exact, problem.decode) == (3, False, None)
    assert problem.start_scale == problem.process.sigma_max
    assert problem.labels(4).tolist() == [0, 1, 2, 0]
    assert problem.fingerprint == load_problem("own_models.py:network").fingerprint
    assert problem.fingerprint != load_problem("own_models:changed").fingerprint
    x0 = problem.denoiser(problem.initial_noise(2), problem.start_level, problem.labels(2))
    assert x0.shape == (2, 1, 4, 4)


def test_settings_of_a_denoiser_change_its_fingerprint(folder: Path) -> None:
    names = ("edm_2", "edm_3", "x0", "eps", "level", "plain", "scaled", "zeros", "ones")
    found = [load_problem(f"own_models:{name}").fingerprint for name in names]
    assert len(set(found)) == len(names)
    assert found == [load_problem(f"own_models:{name}").fingerprint for name in names]


REFUSALS = {
    "mix9": "unknown problem 'mix9'; known: mix8, ring2",
    "own_models.py": "name what is to be taken from own_models.py: own_models.py:ATTRIBUTE",
    "nothing:problem": "nothing:problem: there is no module 'nothing'; write module:attribute",
    "json.nothing:x": "there is no module 'json.nothing'; write module:attribute",
    ":problem": "unknown problem ':problem'; known: mix8",
    "own_models:": "; or a diffusers pipeline (its folder, or its hub id org/name), module:attri",
    "nothing.py:problem": "nothing.py:problem: there is no file nothing.py",
    "own_models:nothing": "own_models:nothing: own_models has no attribute 'nothing'; name a Probl",
    "own_models:NUMBER": "must be, or return, a Problem, or a denoiser with .process and .shape, "
    "got int",
    "own_models:bare": "got Net; wrap a network in DiffusersDenoiser, EDMDenoiser or Callable",
    "own_models:Net": "got Net; wrap",
    "own_models:shapeless": "got EDMDenoiser without .shape; wrap",
    "own_models:letters": ".shape of own_models:letters must be that of one sample, whole numbers "
    "of at least 1 such as (1, 28, 28), got 'abc'",
    "own_models:one_number": ".shape of own_models:one_number must be",
    "own_models:no_size": ".shape of own_models:no_size must be",
    "own_models:empty_size": ".shape of own_models:empty_size must be",
    "own_models:halves": ".shape of own_models:halves must be",
    "own_models:counted_in_words": ".num_classes of own_models:counted_in_words must be a whole "
    "number, 0 or None without classes, got 'ten'",
    "own_models:below_none": "0 or None without classes, got -1",
    "own_models:empty_problem": ".shape of own_models:empty_problem must be",
    "own_models:function": "own_models:function has no .network, a torch module, by whose weights "
    "its results could be told from others; return a Problem with a fingerprint",
    "own_models:needy": r"own_models:needy cannot be called (missing a required argument: 'size')",
    "own_models:failing": "own_models:failing: calling it failed with KeyError: 'weights'",
    "broken:x": "broken:x: importing it failed with ModuleNotFoundError: No module named "
    "'not_installed'",
    "broken.py:x": "importing it failed with ModuleNotFoundError: No module named 'not_install",
    "raising:x": "raising:x: importing it failed with RuntimeError: no weights",
    "raising.py:x": "importing it failed with RuntimeError: no weights",
    "empty": "empty is no pipeline, it holds no model_index.json; give a folder that "
    "pipe.save_pretrained(folder) wrote",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_one_line(name: str, folder: Path) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_problem(name)
    assert REFUSALS[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_device_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="on device 'cpu', and 'meta' was asked for; make it a f"):
        load_problem("own_models:exact", "meta")
    assert load_problem("own_models:placed", "meta").device == "meta"


@pytest.mark.parametrize("name", ["mix8", "own_models:problem"])
def test_settings_of_pipelines_are_refused_elsewhere(name: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} takes no prompts, only text-to-image"):
        load_problem(name, prompts=folder / "prompts.txt")
    with pytest.raises(ValueError, match=f"{name} decides on its own dtype, .* got float16"):
        load_problem(name, dtype="float16")


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`:UserWarning")
def test_a_hub_id_that_cannot_be_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_problem("fewstep-nobody/no-such-model")
    line = str(caught.value)
    assert line.startswith(
        "'fewstep-nobody/no-such-model' is no folder here and cannot be had from"
    )
    assert line.endswith(
        "give a local folder that pipe.save_pretrained(folder) wrote, or go online"
    )
    assert "\n" not in line


def test_the_command_line_takes_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plan", "unipc", "--nfe", "3", "--problem", "own_models:network"])
    assert left.value.code == 0
    with pytest.raises(SystemExit) as left:
        main(["plan", "unipc", "--nfe", "3", "--problem", "own_models:nothing"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: own_models:nothing: own_models has no attr")


def test_bundled_names_come_first(folder: Path) -> None:
    (folder / "mix8").mkdir()
    assert load_problem("mix8").fingerprint == load_problem("mix8").fingerprint
    assert "mix8" in PROBLEMS
