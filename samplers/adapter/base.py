"""The diffusers side: a scheduler whose ``step`` runs one evaluation of a plan."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from torch import Tensor
from torch.compiler import is_compiling

from fewstep.samplers.adapter import foreign, said, settings
from fewstep.samplers.adapter.arguments import check_arguments
from fewstep.samplers.adapter.assigned import SLOTS, FlowEnd, assignable, assigned_ends, refusal
from fewstep.samplers.adapter.choose import choose
from fewstep.samplers.adapter.index import Runs, noise_source
from fewstep.samplers.adapter.late_start import grid_below, own_ratio, starting_entry
from fewstep.samplers.adapter.output import StepOutput, StepPair
from fewstep.samplers.adapter.public import PublicTensors, Shown
from fewstep.samplers.adapter.threshold import DynamicThreshold
from fewstep.samplers.adapter.training import TrainingNoise, training_levels, training_tables
from fewstep.samplers.adapter.trajectory import Asked, Planned, Trajectory
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import facts
from fewstep.samplers.solvers.effects import missing_step
from fewstep.samplers.solvers.registry import SAMPLERS
from fewstep.samplers.solvers.tail import tail
from fewstep.schedules.breaks import mark, snap_or_mark
from fewstep.schedules.diffusers.spacing import shift_from_config
from fewstep.schedules.grids import Grid
from fewstep.schedules.prediction import Prediction
from fewstep.schedules.process import VE, Flow, NoiseProcess
from fewstep.types import RunFacts

NOT_PASSED = object()
TABLES = ("alphas_cumprod", "alphas", "betas")
LATE = (
    "the run starts at entry {} of {} without add_noise() or set_begin_index(): on an automatic "
    "grid that entry is no fixed share of the noise; if the pipeline made the noise itself, take "
    "from_config(..., grid='diffusers')"
)


class PlanSchedulerMixin(TrainingNoise, SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Base of all our schedulers; a subclass names its entry of the registry.

    ``set_timesteps(n)`` makes a plan of exactly n network calls from the config as it is at that
    moment, ``timesteps`` holds one float per call, ``order`` is 1, and any entry is a legal start.
    ``breakpoints``, which is no setting and not saved, are ratios sigma / alpha where the network's
    output may jump: the next ``set_timesteps`` puts nodes there, and no step looks back across one.
    """

    _compatibles = [entry.name for entry in KarrasDiffusionSchedulers]  # noqa: RUF012
    order = 1
    sampler: ClassVar[str]
    breakpoints: tuple[float, ...] = ()

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """As in diffusers; a config of another class is adopted (see ``foreign``)."""
        if not isinstance(config, Mapping):
            return super().from_config(config, return_unused_kwargs, **kwargs)
        arguments = inspect.signature(cls.__init__).parameters
        kwargs = foreign.spelled_out(kwargs, arguments)
        mistyped = kwargs.keys() - arguments.keys() - settings.LOADING_KWARGS
        if mistyped and not return_unused_kwargs:
            raise said.no_argument(cls.__name__, min(mistyped), arguments)
        own, carried = foreign.split(config, {key: p.default for key, p in arguments.items()})
        with said.inherited():
            made: Any = super().from_config(own, True, **kwargs)
        scheduler, unused = made
        foreign.carry(scheduler, carried)
        ours = settings.live(scheduler.config)
        foreign.listen(cls.__name__, config, ours)
        said.warn_unread(cls.__name__, kwargs, ours, scheduler.process)
        return (scheduler, unused) if return_unused_kwargs else scheduler

    def _setup(self) -> None:
        config = settings.live(self.config)
        Prediction(config["prediction_type"])
        self._run: Trajectory | None = None
        self._runs = Runs()
        self._show_training()

    def _show_training(self) -> None:
        """Tensors of the config as it is now, before ``set_timesteps``."""
        config = settings.live(self.config)
        self._shown = settings.identity_of(config)
        self._training = PublicTensors(training_levels(self.process, config))

    def register_to_config(self, **kwargs: Any) -> None:
        """As in diffusers; the shift of a flow has two names and one value."""
        if "shift" in kwargs and "flow_shift" not in kwargs and "flow_shift" in self.config:
            kwargs["flow_shift"] = kwargs["shift"]
        register: Any = super().register_to_config
        register(**kwargs)

    def to_json_string(self) -> str:
        """The config as it is saved."""
        return settings.without_none(super().to_json_string())

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}grid: {self.grid_reason}"

    @property
    def process(self) -> NoiseProcess:
        """The noise process of the config as it is now."""
        return settings.process_of(settings.live(self.config))

    @property
    def _public(self) -> PublicTensors:
        if self._run is not None:
            return self._run.public
        if self._shown != settings.identity_of(settings.live(self.config)):
            self._training.check(*TABLES)
            self._show_training()
        return self._training

    @property
    def _executor(self) -> Executor | None:
        return None if self._run is None else self._run.executor

    timesteps = Shown()
    sigmas = Shown()
    alphas_cumprod = Shown()
    alphas = Shown()
    betas = Shown()
    sigma_max = FlowEnd(entry=0, always=1.0)
    sigma_min = FlowEnd(entry=-1, always=0.0)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self).get("_internal_dict", ()) and not assignable(type(self), name):
            raise refusal(name, value)
        super().__setattr__(name, value)

    @property
    def plan(self) -> Plan | None:
        """What ``set_timesteps`` made; after a late start, of the calls that are left."""
        return None if self._run is None else self._run.planned.plan

    @property
    def grid(self) -> Grid | None:
        """The grid of the plan, if it was made on one."""
        return None if self._run is None else self._run.planned.grid

    @property
    def grid_reason(self) -> str:
        """Which rule chose the grid."""
        if self._run is None:
            return "set_timesteps() has not been called"
        return self._run.planned.reason

    @property
    def num_inference_steps(self) -> int | None:
        """Network calls of ``set_timesteps``; None before."""
        return None if self._run is None else len(self.timesteps)

    @property
    def shift(self) -> float:
        """The shift of a flow, ``flow_shift`` of the config."""
        if not isinstance(self.process, Flow):
            raise AttributeError(f"this {type(self).__name__} has no shift: its process is no flow")
        fixed = {**settings.view(settings.live(self.config)), "use_dynamic_shifting": False}
        return shift_from_config(fixed)

    @shift.setter
    def shift(self, shift: float) -> None:
        self.set_shift(shift)

    def set_shift(self, shift: float) -> None:
        """Changes the shift of a flow, from the next ``set_timesteps`` on.

        Args:
            shift: > 0; 1 for none.

        Raises:
            ValueError: for another process, or a shift that is not positive.
        """
        if not isinstance(self.process, Flow):
            raise ValueError("only flows have a shift, and this config describes none")
        if not shift > 0:
            raise ValueError(f"the shift of a flow must be > 0, got {shift}")
        register: Any = self.register_to_config
        register(shift=float(shift))

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise to start from."""
        if self.plan is not None and isinstance(self.process, VE):
            return self.plan.evaluations[0].sigma
        return self.process.start_scale

    @property
    def step_index(self) -> int | None:
        """The evaluation that the next ``step`` consumes; None before the first."""
        return None if self._run is None else self._run.position.index

    @property
    def begin_index(self) -> int | None:
        return None if self._run is None else self._run.position.begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Starts the trajectory at an entry of ``timesteps`` (image-to-image).

        If the sample to start from is made by ``add_noise`` or ``scale_noise`` then, these may move
        the levels of the entries that are left (see :meth:`add_noise`); a sample that is there
        already, as that of a refiner, goes on at the levels as they are.

        Raises:
            ValueError: if there is no such entry, or ``add_noise`` has started the run elsewhere.
        """
        if self._run is None:
            return
        moved = self._run.moved_to
        if moved not in (None, begin_index):
            raise ValueError(
                f"add_noise() has made the sample of a run that starts at entry {moved}: call "
                f"set_timesteps() again before set_begin_index({begin_index})"
            )
        if not 0 <= begin_index < len(self.timesteps):
            raise ValueError(
                f"begin_index must lie in 0 .. {len(self.timesteps) - 1}, got {begin_index}"
            )
        self._run.position.begin = begin_index

    def __len__(self) -> int:
        return int(settings.live(self.config)["num_train_timesteps"])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
        original_inference_steps: Any = NOT_PASSED,
    ) -> None:
        """Makes the plan.

        Args:
            num_inference_steps: network calls, >= 1.
            device: of ``timesteps``.
            timesteps: network times of the steps, falling, instead of a grid; solvers of several
                calls a step make more, in between. Beside ``sigmas`` of a flow, what the network is
                told at each of these levels.
            sigmas: noise levels instead of a grid, sigma of a flow or EDM model and sigma / alpha
                otherwise, n of them or n + 1 with a final 0. A flow's are shifted, and finished as
                its config says. Its even ones, 1 - i/n in any container (within 1e-6), are how
                pipelines say n: they count as n calls on the scheduler's grid, and
                ``grid="diffusers"`` walks them.
            mu: of dynamic shifting.
            original_inference_steps: of latent consistency models, and refused.

        Raises:
            ValueError: if none of the three is given, for a count that is not that of the levels,
                for timesteps beside sigmas unless the process is a flow, for levels that do not
                fall, or if the tensors of the training process were written to.
        """
        if original_inference_steps is not NOT_PASSED:
            raise ValueError(
                "original_inference_steps= belongs to latent consistency models, which are sampled "
                "from data prediction to data prediction and by no ODE solver: keep LCMScheduler"
            )
        self._check_tables()
        process = self.process
        planned = self._planned(num_inference_steps, timesteps, sigmas, mu)
        self._adopt(planned, process, device)

    def _planned(self, count: int | None, timesteps: Any, sigmas: Any, mu: float | None) -> Planned:
        """The plan that is asked for, its grid if it was made on one, and what decided."""
        config = settings.live(self.config)
        choice = choose(
            self.sampler, self.process, config, count, timesteps, sigmas, self.breakpoints, mu=mu,
            ends=assigned_ends(self),
        )  # fmt: skip
        plan = self._build(choice.grid, choice.nfe)
        if problem := missing_step(SAMPLERS[self.sampler].taken(config), choice.nfe):
            warnings.warn(f"{type(self).__name__}: {problem}", stacklevel=4)
        return Planned(plan, choice.grid, choice.reason, choice.asked)

    def _build(self, grid: Grid, nfe: int) -> Plan:
        entry, config = SAMPLERS[self.sampler], settings.live(self.config)
        return entry.plan(grid, nfe, entry.taken(config))

    def _adopt(
        self, planned: Planned, process: NoiseProcess, device: torch.device | str | None
    ) -> None:
        config = settings.live(self.config)
        self._sigma_data = settings.sigma_data_of(config)
        self._learned_variance = config.get("variance_type") in ("learned", "learned_range")
        self._run = Trajectory(
            planned,
            self._executes(config),
            native=isinstance(process, Flow),
            tables=training_tables(process),
            device=device,
            runs=self._runs,
        )

    def _executes(self, config: Mapping[str, Any]) -> Callable[[Plan], Executor]:
        prediction, threshold = Prediction(config["prediction_type"], self._sigma_data), None
        if config["thresholding"]:
            ratio, cap = config["dynamic_thresholding_ratio"], config["sample_max_value"]
            threshold = DynamicThreshold(ratio, cap)
        return partial(Executor, prediction=prediction, threshold=threshold)

    def _begin(self, run: Trajectory, entry: int, sample: Tensor) -> None:
        """Starts a trajectory at an entry, where multistep methods have no history yet."""
        if not is_compiling():
            run.public.check("timesteps", "sigmas")
        if not entry or entry == run.offset:
            return
        if run.position.begin is None and not run.noised and run.planned.asked is not None:
            warnings.warn(LATE.format(entry, len(self.timesteps)), stacklevel=4)
        run.enter(entry, tail(run.planned.plan, entry, self._rebuild_marked, self.process))

    def _rebuild_marked(self, grid: Grid, nfe: int) -> Plan:
        return self._rebuild(mark(grid, self.breakpoints), nfe)

    def _rebuild(self, grid: Grid, nfe: int) -> Plan:
        """The solver on a part of its grid, for a late start."""
        return self._build(grid, nfe)

    def _late_options(self) -> dict[str, Any]:
        """The solver's options for a run that starts from an image."""
        return SAMPLERS[self.sampler].taken(settings.live(self.config))

    def _check_tables(self) -> None:
        self._public.check(*TABLES)

    def _first_level(self, times: Tensor, batch: int) -> tuple[float, float] | None:
        """(alpha, sigma) of the first call, if noise at these times is what a run starts from."""
        run = self._run
        if run is None or run.position.index is not None or is_compiling():
            return None
        entry = starting_entry(run.position, times, batch, run.moved_from)
        if entry is None:
            return None
        if entry and entry != run.offset and run.planned.asked is not None:
            self._move(run, entry, run.planned.asked)
        if run.position.begin is None:
            run.position.begin = entry
            run.position.why = f" (add_noise was told the time of entry {entry} before)"
        run.noised = True
        row = run.row(entry)
        return row.alpha, row.sigma

    def _move(self, run: Trajectory, entry: int, asked: Asked) -> None:
        """Starts at the noise level that the config's own grid has at an entry."""
        process, config = self.process, settings.live(self.config)
        rho = own_ratio(process, config, asked, entry)
        options, calls = self._late_options(), len(self.timesteps) - entry
        grid = grid_below(rho, calls, self.sampler, process, config, options, asked.mu)
        grid = snap_or_mark(grid, self.breakpoints)
        plan = SAMPLERS[self.sampler].plan(grid, calls, options)
        reason = f"{run.planned.reason}, below the level of the config's own grid at entry {entry}"
        run.move(entry, Planned(plan, grid, reason))

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input: the sample, or EDM's c_in x = x / sqrt(sigma^2 + sigma_data^2).

        Raises:
            ValueError: for a single number, which the latent upscaler of Stable Diffusion passes.
        """
        if not sample.ndim:
            raise ValueError(
                "scale_model_input() got a single number, as StableDiffusionLatentUpscalePipeline "
                "passes: it needs samples scaled as diffusers' Euler has them; keep that scheduler"
            )
        run = self._run
        if run is None or self._sigma_data is None:
            return sample
        sigma = run.row(run.position.peek(timestep)).sigma
        return torch.mul(sample, 1 / (sigma**2 + self._sigma_data**2) ** 0.5)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
        *,
        pred_original_sample: Tensor | None = None,
        eta: float = 0.0,
        prev_timestep: Any = None,
        per_token_timesteps: Any = None,
    ) -> StepOutput | StepPair | tuple[Tensor, Tensor]:
        """Advances the sample by one evaluation of the plan.

        Args:
            model_output: the network's output at ``sample``, of its shape; with a learned
                ``variance_type`` the channels of the variance may follow.
            timestep: the entry of ``timesteps``; read at the first call only, if at all.
            sample: what the network was called with, before ``scale_model_input``.
            generator: one for the batch, or a list or tuple with one for each sample.
            variance_noise: unit noise to use instead of drawing it.
            return_dict: a ``StepOutput``, or the pair (prev_sample, pred_original_sample), whose
                second entry is computed when it is read.
            pred_original_sample: the data prediction, if the caller has made it, in place of the
                one that ``model_output`` means.
            eta: 0, or the ``eta`` of the config: noise belongs to the plan.
            prev_timestep: the entry after ``timestep``, which the plan knows.
            per_token_timesteps: None; a plan has one time for the whole sample.

        Raises:
            TypeError: if ``generator`` is none.
            ValueError: before ``set_timesteps``, after the last step, for an entry of
                ``timesteps`` out of turn, for noise that does not fit, or for what a plan cannot
                do.
        """
        run = self._run
        if run is None:
            raise ValueError("call set_timesteps(n) before step()")
        if eta or prev_timestep is not None or per_token_timesteps is not None:
            check_arguments(self, run.position, timestep, eta, prev_timestep, per_token_timesteps)
        position = run.position
        entry = position.take(timestep)
        try:
            if entry == position.start:
                run.check_start(timestep)
                self._begin(run, entry, sample)
            executor, index = run.executor, entry - run.offset
            draw = noise_source(executor.draws[index], len(sample), generator, variance_noise)
            if self._learned_variance:  # its channels follow the mean's, and no solver uses them
                model_output = model_output[:, : sample.shape[1]]
            if pred_original_sample is not None:
                model_output = executor.output_of(index, pred_original_sample, sample)
            look = index, model_output, sample
            whole = return_dict or is_compiling()
            data = executor.data_prediction(*look) if whole else None
            previous = executor.step(index, model_output, sample, draw)
            if entry + 1 == len(position.values) and not is_compiling():
                run.public.check("timesteps", "sigmas")
        except Exception:
            position.undo()
            raise
        if return_dict:
            return StepOutput(prev_sample=previous, pred_original_sample=data)
        return StepPair((previous, (executor, *look))) if data is None else (previous, data)

    def facts(self, start: int = 0) -> RunFacts:
        """What guidance may know of a run from an entry of ``timesteps`` on."""
        assert self._run is not None
        return facts(self._run.planned.plan, start - self._run.first)

    def clone(self) -> Self:
        """An independent scheduler of the same settings (one per thread or trajectory)."""
        other = cast(Self, type(self).from_config(self.config))
        other.breakpoints = self.breakpoints
        vars(other).update({key: end for key, end in vars(self).items() if key in SLOTS})
        return other
