"""No option is taken twice, and none without effect: of commands, specs, guidance and files."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from command_line import call
from refusals import attempt

import fewstep
from fewstep.eval.bench.sweeps import read_sweep
from fewstep.eval.cli.app import app
from fewstep.eval.common.yaml_files import read_yaml, yaml_text
from fewstep.guidance import parse_guidance
from fewstep.guidance.parse import MODELS, MODIFIERS, SOURCES
from fewstep.samplers import SAMPLERS, Plan, build_plan
from fewstep.samplers.solvers.spec import GRID_OPTIONS, parse_spec
from fewstep.schedules import NAMED_GRIDS, VE, Flow, NoiseProcess, discrete_vp

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PROCESSES: dict[str, NoiseProcess] = {
    "vp": discrete_vp(), "flow": Flow(), "edm": VE(time_is="log")
}  # fmt: skip
BLOBS = f"{Path(__file__).parents[2] / 'support/generation_runs.py'}:blobs"


def single() -> Iterator[tuple[str, tuple[str, ...], bool]]:
    for name, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name == "option" and not (option.multiple or option.is_eager):
                names = (*option.opts, *option.secondary_opts)
                yield name, names, bool(option.is_flag)


@pytest.mark.parametrize(
    ("command", "names", "flag"), list(single()), ids=lambda one: str(one)[:30]
)
def test_an_option_of_one_value_is_given_once(
    command: str, names: tuple[str, ...], flag: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """By any two of its names; before anything else is looked at."""
    for other in names:
        given = (names[0], other) if flag else (names[0], "1", other, "2")
        assert call(command, *given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"error: {'/'.join(names)} is given 2 times and takes one value: leave 1 out"
        )


def test_options_of_several_values_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        call("bench", "-s", "ddim", "-s", "nosuch", "-g", "none", "-g", "none", "-m", "mix8") == 2
    )
    assert "unknown sampler 'nosuch'" in capsys.readouterr().err


IN_VAIN: dict[str, tuple[tuple[str, ...], str]] = {
    "process": (("plan", "ddim", "--problem", "mix8", "--process", "edm"), "leave one out"),
    "quiet": (("gen", "-s", "ddim", "--nfe", "2", "-o", "a", "--quiet", "--dry-run"), "--dry-run"),
    "classes": (("gen", "-m", "mix8", "-s", "ddim", "--nfe", "2", "-o", "a", "--classes", "turn"),
                "has no classes"),
    "weights": (("bench", "-m", "mix8", "--weights", "a.pth"), "none was named"),
    "ref": (("bench", "-m", "mix8", "--ref", "fashion"), "there are none of 'mix8'"),
    "nfe": (("bench", "-m", "mix8", "-s", "dopri5", "--nfe", "5"), "chooses its calls itself"),
    "features": (("tune", "--nfe", "4", "-o", "a.json", "--features", "x:y"), "--objective"),
    "recheck seed": (("verify", "a", "--seed", "3"), "without --recompute"),
    "choice seed": (("ref", "fashion", "-o", "a.npz", "--features", "0", "--seed", "3"),
                    "no features are kept"),
    "metric": (("convert", "a.npz", "b.npz", "--metric", "fid"), "from one .npz to another"),
    **{
        option: (("calc", "a", "--paired", "b", option, value), "without --ref")
        for option, value in (("--metrics", "kid"), ("--repeats", "2"), ("--extractor", "pixels"),
                              ("--weights", "a.pth"), ("--on-error", "skip"), ("--device", "cpu"))
    },
}  # fmt: skip


@pytest.mark.parametrize("case", IN_VAIN)
def test_an_option_without_effect_beside_the_others_is_refused(
    case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = IN_VAIN[case]
    assert call(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Specs

VALUES = (
    "-1", "0", "1", "2", "99", "0.5", "1e300", "-1e300", "1e400", "9" * 400, "true", "none", "nope",
    "", "[]", "[99]", "[0.5]", "[[1]]", "['a']", "[-1,2]", "[0,0]", "[[3,1,1e400,0.5]]",
)  # fmt: skip


def table(plan: Plan) -> Any:
    return plan.evaluations, plan.end


def options() -> list[tuple[str, str]]:
    return [
        (name, key) for name, one in SAMPLERS.items() for key in {**one.options(), **GRID_OPTIONS}
    ]


@pytest.mark.parametrize(("name", "key"), options())
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_value_of_a_spec_counts_or_is_refused(name: str, key: str) -> None:
    """One that is taken makes another table than the default, at some number of calls."""
    for value in VALUES:
        text = f"{name}:{key}={value}"
        plan, refused = attempt(lambda text=text: build_plan(text, PROCESSES["vp"], 8))
        assert "\n" not in refused
        if plan is None:
            continue
        own = parse_spec(text)
        default = {**SAMPLERS[name].options(), **GRID_OPTIONS}[key]
        if {**own.options, **own.grid}[key] in (default, list(default) if default == () else None):
            continue
        calls = [n for n in (8, 12, 40, 300) if table(own.made(PROCESSES["vp"], n)) != table(
            parse_spec(name).made(PROCESSES["vp"], n))]  # fmt: skip
        assert calls, text
        assert plan.calls == 8


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_key_of_a_spec_is_there_once(name: str) -> None:
    for key in {**SAMPLERS[name].options(), **GRID_OPTIONS}:
        with pytest.raises(ValueError, match=f"option {key}= of sampler '{name}' is there twice"):
            parse_spec(
                f"{name}:{key}=[],{key}=[]"
                if key == "disable_corrector"
                else f"{name}:{key}={default_text(name, key)},{key}={default_text(name, key)}"
            )


def default_text(name: str, key: str) -> str:
    return str({**SAMPLERS[name].options(), **GRID_OPTIONS}[key])


@pytest.mark.parametrize(
    ("spec", "process", "message"),
    [
        ("ddim:final=nope", "vp", "final must be 'zero' or 'sigma_min', got 'nope'"),
        ("ddim:power=3", "vp", "belongs to grid=karras"),
        ("ddim:grid=tan,power=3", "vp", "belongs to grid=karras"),
        ("ddim:shift=3", "vp", "shift must lie in .* unless the process is a flow"),
        ("ddim:shift=3", "edm", "shift must lie in .* unless the process is a flow"),
        ("ddim:shift=0", "flow", "shift must lie in"),
        ("ddim:grid=oss_flux,shift=3", "flow", "shift=3 .* has no effect"),
        ("unipc:disable_corrector=[99]", "vp", "names step 99, and 8 calls have steps 0 to 7"),
        ("unipc:disable_corrector=[0,0]", "vp", "names a step twice"),
        ("unipc:disable_corrector=[-1,2]", "vp", "names a step twice"),
        ("unipc:order=1,lower_order_final=false", "vp", "lower_order_final=False .* has no effect"),
        ("dpmpp:variant=exact", "vp", "variant=exact .* has no effect"),
        ("dpmpp:order=1,solver_type=heun", "vp", "solver_type=heun .* has no effect"),
        ("singlestep:order=1,solver_type=midpoint", "edm", "solver_type=midpoint .* has no effect"),
        ("deis:order=1,variable=rho", "vp", "variable=rho .* has no effect"),
        ("edm:churn_min=3,churn_max=2", "vp", "0 <= churn_min <= churn_max"),
        ("edm:churn_min=60", "vp", "0 <= churn_min <= churn_max"),
        ("edm:churn=0,noise_scale=1.1", "vp", "noise_scale=1.1 .* has no effect"),
        ("edm:churn=0,churn_max=3", "edm", "churn_max=3 .* has no effect"),
        ("sa:tau=0,tau_min=1", "vp", "tau_min=1 .* has no effect"),
        ("sa:corrector_order=0,evaluate=pece", "vp", "evaluate=pece .* has no effect"),
        ("restart:intervals=[],inner=ddim", "vp", "inner=ddim .* has no effect"),
        ("restart:solver=(dpmpp:variant=exact)", "vp", "variant=exact in solver= .* has no effect"),
        ("dc:guidance_scale=3", "vp", "guidance_scale=3 .* has no effect"),
        ("dc:multistep=(deis:order=1,variable=rho)", "vp", "in multistep= .* has no effect"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_in_a_spec(spec: str, process: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        build_plan(spec, PROCESSES[process], 8)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "process", "nfe"),
    [
        ("unipc:order=4", "vp", 1),  # too few calls for it, as in a sweep over numbers of calls
        ("dpmpp:order=3,variant=exact", "vp", 2),
        ("dpmpp:order=3,lower_order_final=true", "vp", 8),  # the default below 15 calls
        ("deis:variable=rho", "edm", 8),  # there the time of the network is ln(rho) / 4
        ("deis:variable=rho", "flow", 8),
        ("edm:churn=80", "vp", 8),  # at its limit, as is the default
        ("unipc:disable_corrector=[0,3]", "vp", 8),
        ("unipc:disable_corrector=[-1]", "vp", 1),
        ("unipc:order=3,solver_type=bh2,grid=auto,final=zero,shift=1", "vp", 8),  # defaults
        ("ddim:grid=karras,power=5", "vp", 8),
        ("ddim:shift=3", "flow", 8),
    ],
)
def test_what_counts_somewhere_is_taken(spec: str, process: str, nfe: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_plan(spec, PROCESSES[process], nfe).calls == nfe


@pytest.mark.parametrize("grid", NAMED_GRIDS)
def test_settings_of_every_grid(grid: str) -> None:
    for process in PROCESSES.values():
        for setting in ("final=nope", "power=0", "power=-1", "power=1e300", "shift=-1",
                        "shift=1e300", "shift=nope"):  # fmt: skip
            with pytest.raises(ValueError, match=setting.partition("=")[0]):
                build_plan(f"ddim:grid={grid},{setting}", process, 4)


def test_constructors_share_the_checks() -> None:
    """What a config of the world may well have is said, and what cannot be is refused."""
    ours = fewstep.UniPC(disable_corrector=[0, 99])
    with pytest.warns(UserWarning, match=r"UniPC: disable_corrector names step 99, and 8 calls"):
        ours.set_timesteps(8)
    for made, message in (
        (fewstep.DDIM(final="nope"), "final must be"),
        (fewstep.EDMStochastic(churn_min=3.0, churn_max=2.0), "churn_min <= churn_max"),
        (fewstep.EDMStochastic(churn=float("nan")), "churn must be a finite number"),
        (fewstep.UniPC(disable_corrector=["a"]), "takes a list of numbers of steps"),
        (fewstep.DPMSolverPP(tau=float("nan")), "tau must be a number from 0 to 100"),
    ):
        with pytest.raises(ValueError, match=message):
            made.set_timesteps(8)
    for config in ({"num_train_timesteps": 0}, {"num_train_timesteps": 0, "use_flow_sigmas": True}):
        with pytest.raises(ValueError, match="num_train_timesteps must be a whole number"):
            fewstep.Euler.from_config({**config, "prediction_type": "flow_prediction"})


# Guidance


def parts() -> list[tuple[str, str]]:
    from inspect import signature

    given = {key for key, _ in MODELS.values()} | {"weak", "distance"}
    kinds: dict[str, Any] = {**SOURCES, **MODIFIERS}
    return [
        (n, key)
        for n, kind in kinds.items()
        for key in signature(kind).parameters
        if key not in given
    ]


FIRST = {"interval": "lo=0.1,hi=2", "every": "n=2", "cfg": "scale=2", "icg": "scale=2"}


@pytest.mark.parametrize(("name", "key"), parts())
@pytest.mark.filterwarnings("ignore:a scale of")
def test_a_value_of_guidance_is_of_its_kind(name: str, key: str) -> None:
    """Or it is refused in one line, whatever it is."""
    models = {needed: (lambda: None) for _, needed in MODELS.values()}
    needed = ",".join(
        part for part in FIRST.get(name, "").split(",") if part and not part.startswith(f"{key}=")
    )
    taken = 0
    for value in ("-1", "0", "1", "2.5", "0.5", "true", "none", "nan", "inf", "1e400", "9" * 400,
                  "[1]", "{}", "nope", "[" * 2000):  # fmt: skip
        text = f"{name}:{needed}{',' if needed else ''}{key}={value}"
        text = text if name in SOURCES else f"cfg:2|{text}"
        _, refused = attempt(lambda text=text: parse_guidance(text, models))
        assert "\n" not in refused
        taken += not refused
    assert taken < 12  # some of these kinds are of no argument


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cfg:2,3", "cannot take '3'; its values are, in order, scale, or KEY=VALUE, as site=NAME"),
        ("icg:2,class,b", "cannot take 'b'; its values are, in order, scale, mode"),
        ("cfg:2,site=3", "site of CFG takes a text, got 3"),
        ("cfg:true", "scale of CFG takes a number, got True"),
        ("cfg:2,scale=3", "in order, scale"),
        ("gfcg:2,lagged=5", "lagged of GFCG takes True or False, got 5"),
        ("cfg:2|zerostar:2.5", "zero_steps of ZeroStar takes a whole number, got 2.5"),
        ("(" * 3000 + "cfg:2" + ")" * 900, "has too many brackets"),
    ],
)
def test_numbers_of_guidance_have_their_documented_places(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_guidance(text, {"classifier": lambda: print})


# YAML


@pytest.mark.parametrize("key", ["problem", "samplers", "nfe", "n", "guidance", "out", "compile"])
def test_a_key_of_a_sweep_is_there_once(key: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{key}: 5\nseed: 1\n{key}: 5\n")
    with pytest.raises(
        ValueError, match=rf"a\.yaml: line 3: '{key}' is there twice: leave one out"
    ):
        read_sweep(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n: 010", "line 1: '010' is read in two ways: write a plain number"),
        ("compile: yes", "'yes' is read in two ways: write a plain number, true or false"),
        ("compile: Off", "'Off' is read in two ways"),
        ("seed: 1:30", "'1:30' is read in two ways"),
        ("n: 1_000", "'1_000' is read in two ways"),
        ("n: 1e3", "'1e3' is read in two ways"),
        ("n: 0o17", "'0o17' is read in two ways"),
        ("out: 2001-01-01", "put a text in quotes, \"2001-01-01\""),
        ("nfe: [5, 010]", "'010' is read in two ways"),
        ("nfe: {5: 1, a: {b: 1, b: 2}}", "a name is a text, got 5"),
        ("nfe: {a: {b: 1, b: 2}}", "'b' is there twice"),
        ("nfe: &x [5]\nsamplers: *x", "anchors"),
        ("model: mix8\nproblem: mix8", "model and problem are one option"),
        ("problem: !!python/name:os.system", "no YAML"),
        ("n: " + "9" * 5000, "Exceeds the limit"),
    ],
)  # fmt: skip
def test_yaml_has_one_reading(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_sweep(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_we_write_we_read(tmp_path: Path) -> None:
    """Texts that either YAML takes for something else are quoted."""
    texts = [
        "010",
        "yes",
        "1:30",
        "1e5",
        "0o17",
        "1_000",
        "2001-01-01",
        "~",
        "",
        "a: b",
        "*x",
        "<<",
    ]
    value = {"texts": texts, "n": 5, "x": 0.1, "on": True, "none": None, "big": 1e300}
    path = tmp_path / "a.yaml"
    path.write_text(yaml_text(value))
    assert read_yaml(path) == value
    assert yaml.safe_load(path.read_text())["texts"] == texts
