"""How good samplers and samples are: problems, benchmarks, metrics, samples on disk, reports.

Read problems/problem.py (what is sampled, and the solution that samplers are measured against),
then bench/runner.py (what ``fewstep bench`` does), then metrics/frechet.py (how sets of images are
compared). The rooms, in the order in which they build on each other:

- common: what several rooms need, such as processes, caches, keys and clocks.
- networks: feature extractors, and what prepares images for them.
- problems: bundled problems, diffusers pipelines, and models by import path.
- metrics: scores of sets of samples, and the statistics behind them.
- generate: samples into folders that survive a crash, on one process or several.
- reports: results on disk, and the pages that are made from them.
- images, bench: scores of images from anywhere, and samplers side by side.
- tune: what ``fewstep tune`` does around :mod:`fewstep.samplers`' tuning.
- cli: the command line, options and what commands do.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.eval":
    raise ImportError(f"import fewstep.eval, not {__name__}")

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.eval.bench.runner import run_bench as run_bench
    from fewstep.eval.bench.setup import Bench as Bench
    from fewstep.eval.cli.app import main as main
    from fewstep.eval.common.image_sets import quantised as quantised
    from fewstep.eval.generate.generation import generate_images as generate_images
    from fewstep.eval.generate.recipe import Recipe as Recipe
    from fewstep.eval.generate.recipe import run_from_folder as run_from_folder
    from fewstep.eval.generate.verification import verify as verify
    from fewstep.eval.metrics.density import FashionJudge as FashionJudge
    from fewstep.eval.metrics.extrapolation import fd_infinity as fd_infinity
    from fewstep.eval.metrics.extrapolation import jackknife as jackknife
    from fewstep.eval.metrics.frechet import FrechetReference as FrechetReference
    from fewstep.eval.metrics.frechet import frechet_distance as frechet_distance
    from fewstep.eval.metrics.judge import real_features as real_features
    from fewstep.eval.metrics.kid import kid as kid
    from fewstep.eval.metrics.kid import kid_all_pairs as kid_all_pairs
    from fewstep.eval.metrics.manifold import manifold as manifold
    from fewstep.eval.metrics.moments import ExactMoments as ExactMoments
    from fewstep.eval.metrics.moments import Moments as Moments
    from fewstep.eval.metrics.names import metric_name as metric_name
    from fewstep.eval.metrics.references import load_reference as load_reference
    from fewstep.eval.metrics.repeats import Summary as Summary
    from fewstep.eval.metrics.sliced import sliced_wasserstein as sliced_wasserstein
    from fewstep.eval.metrics.statistics_files import FeatureStatistics as FeatureStatistics
    from fewstep.eval.metrics.statistics_files import load_statistics as load_statistics
    from fewstep.eval.networks.extractors import Extractor as Extractor
    from fewstep.eval.networks.families import EXTRACTORS as EXTRACTORS
    from fewstep.eval.networks.families import load_extractor as load_extractor
    from fewstep.eval.networks.inception_weights import (
        ExtractorUnavailableError as ExtractorUnavailableError,
    )
    from fewstep.eval.networks.micro_batches import in_micro_batches as in_micro_batches
    from fewstep.eval.networks.resize import PROTOCOLS as PROTOCOLS
    from fewstep.eval.problems.fine_solution import CountingDenoiser as CountingDenoiser
    from fewstep.eval.problems.loading import load_problem as load_problem
    from fewstep.eval.problems.problem import Problem as Problem
    from fewstep.eval.problems.problem import rmse as rmse
    from fewstep.eval.problems.registry import PROBLEMS as PROBLEMS
    from fewstep.eval.reports.plan_plots import draw_plans as draw_plans
    from fewstep.eval.reports.points import front as front
    from fewstep.eval.reports.points import points as points
    from fewstep.eval.reports.report import write_report as write_report
    from fewstep.eval.reports.results import Results as Results
    from fewstep.eval.reports.titles import metric_title as metric_title
    from fewstep.eval.tune.families import Task as Task
    from fewstep.eval.tune.families import tune_family as tune_family
    from fewstep.eval.tune.run import run_tune as run_tune
    from fewstep.eval.tune.settings import TuneSettings as TuneSettings
    from fewstep.eval.tune.teachers import split_noises as split_noises
    from fewstep.eval.tune.teachers import teacher_grid as teacher_grid
else:
    __getattr__, __dir__, __all__ = door(__name__)
