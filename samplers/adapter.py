"""The diffusers side: a scheduler whose ``step`` runs one evaluation of a plan."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from torch import Tensor

from fewstep.samplers import foreign, run, said, settings
from fewstep.samplers.choose import choose
from fewstep.samplers.convert import Prediction
from fewstep.samplers.execute import Executor
from fewstep.samplers.index import Position, noise_source
from fewstep.samplers.output import StepOutput
from fewstep.samplers.plan import Plan
from fewstep.samplers.registry import SAMPLERS
from fewstep.samplers.tail import tail
from fewstep.samplers.threshold import DynamicThreshold
from fewstep.samplers.training import TrainingNoise, training_tables
from fewstep.schedules.breaks import mark
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import VE, Flow, NoiseProcess
from fewstep.types import RunFacts


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
        config, process = settings.live(self.config), self.process
        Prediction(config["prediction_type"])
        self.num_inference_steps: int | None = None
        self.plan: Plan | None = None
        self.grid_reason = "set_timesteps() has not been called"
        self._executor: Executor | None = None
        self._sigma_data: float | None = None
        self._position = Position(())
        vars(self).update(training_tables(process))
        first = float(process.time(process.rho_max))
        count = int(config["num_train_timesteps"])
        self.timesteps = torch.linspace(first, 0, count, dtype=torch.float32)
        self.sigmas = torch.zeros(0)

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
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise to start from."""
        if self.plan is not None and isinstance(self.process, VE):
            return self.plan.evaluations[0].sigma
        return self.process.start_scale

    @property
    def step_index(self) -> int | None:
        """The evaluation that the next ``step`` consumes; None before the first."""
        return self._position.index

    @property
    def begin_index(self) -> int | None:
        return self._position.begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Starts the trajectory at an entry of ``timesteps`` (image-to-image).

        Raises:
            ValueError: if there is no such entry.
        """
        if self.plan is not None and not 0 <= begin_index < self.plan.calls:
            raise ValueError(
                f"begin_index must lie in 0 .. {self.plan.calls - 1}, got {begin_index}"
            )
        self._position.begin = begin_index

    def __len__(self) -> int:
        return int(settings.live(self.config)["num_train_timesteps"])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
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

        Raises:
            ValueError: if none of the three is given, for a count that is not that of the levels,
                for timesteps beside sigmas unless the process is a flow, or for levels that do not
                fall.
        """
        process = self.process
        plan, grid, reason = self._planned(num_inference_steps, timesteps, sigmas, mu)
        self._adopt(plan, process, device)
        self.grid, self.grid_reason = grid, reason

    def _planned(
        self, count: int | None, timesteps: Any, sigmas: Any, mu: float | None
    ) -> tuple[Plan, Grid | None, str]:
        """The plan that is asked for, its grid if it was made on one, and what decided."""
        config = settings.live(self.config)
        choice = choose(
            self.sampler, self.process, config, count, timesteps, sigmas, self.breakpoints, mu=mu
        )
        return self._build(choice.grid, choice.nfe), choice.grid, choice.reason

    def _build(self, grid: Grid, nfe: int) -> Plan:
        entry, config = SAMPLERS[self.sampler], settings.live(self.config)
        return entry.plan(grid, nfe, entry.taken(config))

    def _adopt(self, plan: Plan, process: NoiseProcess, device: torch.device | str | None) -> None:
        rows = plan.evaluations[plan.history :]
        config = settings.live(self.config)
        self._sigma_data = settings.sigma_data_of(config)
        self._learned_variance = config.get("variance_type") in ("learned", "learned_range")
        self._executor, self._offset = self._run(plan), -plan.history
        vars(self).update(training_tables(process))
        self.plan, self.num_inference_steps = plan, plan.calls
        self.timesteps = torch.tensor(
            [row.time for row in rows], dtype=torch.float32, device=device
        )
        sigmas = plan.sigmas(isinstance(process, Flow))[plan.history :]
        self.sigmas = torch.tensor(sigmas, dtype=torch.float32)
        self._position = Position(self.timesteps)

    def _run(self, plan: Plan) -> Executor:
        config, threshold = settings.live(self.config), None
        prediction = Prediction(config["prediction_type"], self._sigma_data)
        if config["thresholding"]:
            ratio, cap = config["dynamic_thresholding_ratio"], config["sample_max_value"]
            threshold = DynamicThreshold(ratio, cap)
        return Executor(plan, prediction, threshold=threshold)

    def _begin(self, index: int, sample: Tensor) -> None:
        """Starts a trajectory at an entry, where multistep methods have no history yet."""
        if not index:
            return
        assert self.plan is not None
        plan = tail(
            self.plan, index, lambda g, n: self._rebuild(mark(g, self.breakpoints), n), self.process
        )
        self._executor, self._offset = self._run(plan), index

    def _rebuild(self, grid: Grid, nfe: int) -> Plan:
        """The solver on a part of its grid, for a late start."""
        return self._build(grid, nfe)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input: the sample, or EDM's c_in x = x / sqrt(sigma^2 + sigma_data^2)."""
        scale = self._sigma_data
        if scale is None or self.plan is None:
            return sample
        sigma = self.plan.evaluations[self.plan.history + self._position.peek(timestep)].sigma
        return torch.mul(sample, 1 / (sigma**2 + scale**2) ** 0.5)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> StepOutput | tuple[Tensor]:
        """Advances the sample by one evaluation of the plan.

        Args:
            model_output: the network's output at ``sample``, of its shape; with a learned
                ``variance_type`` the channels of the variance may follow.
            timestep: the entry of ``timesteps``; read at the first call only, if at all.
            sample: what the network was called with, before ``scale_model_input``.
            generator: one for the batch, or a list or tuple with one for each sample.
            variance_noise: unit noise to use instead of drawing it.
            return_dict: a ``StepOutput``, or the tuple (prev_sample,).

        Raises:
            ValueError: before ``set_timesteps``, after the last step, for an entry of
                ``timesteps`` out of turn, or for noise that does not fit.
        """
        if self._executor is None:
            raise ValueError("call set_timesteps(n) before step()")
        index = self._position.take(timestep)
        if self._position.fresh:
            self._begin(index, sample)
        index -= self._offset
        draws = self._executor.draws[index]
        draw = noise_source(draws, len(sample), generator, variance_noise)
        if self._learned_variance:  # its channels follow those of the mean, and no solver uses it
            model_output = model_output[:, : sample.shape[1]]
        data = self._executor.data_prediction(index, model_output, sample) if return_dict else None
        previous = self._executor.step(index, model_output, sample, draw)
        self._position.advance()
        if not return_dict:
            return (previous,)
        return StepOutput(prev_sample=previous, pred_original_sample=data)

    def facts(self, start: int = 0) -> RunFacts:
        """What guidance may know of a run from an entry of ``timesteps`` on."""
        assert self.plan is not None
        return run.facts(self.plan, self.plan.history + start)

    def clone(self) -> Self:
        """An independent scheduler of the same settings (one per thread or trajectory)."""
        other = cast(Self, type(self).from_config(self.config))
        other.breakpoints = self.breakpoints
        return other
