"""The setup: all that the runs of a plan share. None of it depends on a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bench.setup import dense, protocols, workload
from bench.setup.budgets import Reach
from bench.setup.dense import DenseWeights
from bench.setup.request import Request
from bench.setup.workload import Workload
from shared import energy, platforms
from shared.cache import checked_cache_dir
from shared.computing import ON_CPU, Computing, computing
from shared.data import Dataset
from shared.energy import EnergyFit, Profile
from shared.energy.terms import KINDS
from shared.errors import BadInput
from shared.networks import Structure
from shared.platforms import Platform, Subject
from shared.protocol import Protocol

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Setup:
    """Network, data, platform and energy model of a plan.

    Equal to itself alone: it holds arrays, and figures are cached for it.

    request: what was asked for.
    workload: which network on which data.
    protocol: the counts and rates that are the same for every method.
    dataset: images, on the device of `computing`.
    platform: what is asked for joules or seconds.
    structure: units and operations of the dense network.
    profile: the platform's readings of many width vectors.
    fit: the energy model fitted to them, with its errors.
    computing: where training runs.
    weights: the dense weights; None until `with_dense_weights`.
    """

    request: Request
    workload: Workload
    protocol: Protocol
    dataset: Dataset
    platform: Platform
    structure: Structure
    profile: Profile
    fit: EnergyFit
    computing: Computing = ON_CPU
    weights: DenseWeights | None = None

    @property
    def dense(self) -> DenseWeights:
        """The dense weights, which `with_dense_weights` loads."""
        assert self.weights is not None, "expected a setup with dense weights; try with_dense_weights()"
        return self.weights

    @property
    def subject(self) -> Subject:
        """What the platform reads."""
        return Subject(self.structure, self.workload.build)

    @property
    def unit(self) -> str:
        """Of all amounts: J, or s where the metric is latency."""
        return self.platform.unit

    @property
    def inference_batch(self) -> int:
        """Images that the platform infers at once when it is read."""
        return self.profile.batch

    @cached_property
    def reach(self) -> Reach:
        """The budgets that can be asked for."""
        return Reach(
            floor=self.estimate((1,) * len(self.structure.units)),
            dense_reading=self.profile.dense_reading,
            dense_estimate=self.estimate(self.structure.upper_bounds),
            unit=self.unit,
        )

    def estimate(self, widths: tuple[int, ...]) -> float:
        """Ê per image at `widths`."""
        return float(self.fit.model(self.structure.positions(widths)))

    def with_dense_weights(self) -> Setup:
        """The setup with dense weights on the training device: loaded, or trained now where there are none yet."""
        weights = dense.obtain(self.workload, self.dataset, lambda *_: None)
        return replace(self, weights=replace(weights, network=weights.network.to(self.computing.device)))


def prepare(request: Request, say: Say = lambda _: None, *, to_train: bool = False) -> Setup:
    """Load the data, profile the platform (or take its profile from the cache) and fit the energy model.

    say: is told what takes long.
    to_train: images and dense weights of a data set in files have to be there. Without it their counts and shapes do.
    Raises BadInput for what a person can mend; writes nothing but caches.
    """
    return _open(request, say, to_train=to_train, may_read=True)


def reopen(request: Request) -> Setup:
    """The setup that `prepare` has made from the same request, with dense weights, from caches alone.

    For worker processes. They must not read the platform: a reading waits for all that compute, the reader itself too.
    """
    return _open(request, lambda _: None, to_train=True, may_read=False).with_dense_weights()


def _open(request: Request, say: Say, *, to_train: bool, may_read: bool) -> Setup:
    place = computing(request.compute, request.compile)
    place.enter()
    protocol = protocols.get(request.protocol, request.network)
    if request.energy_model not in KINDS:
        raise BadInput(
            f"an energy model out of {', '.join(KINDS)}", repr(request.energy_model), "bilinear, the paper's"
        )
    platform = platforms.choose(request.device, request.metric, request.meter)
    platform.say = say
    work = workload.get(request.network, request.dataset)
    checked_cache_dir()
    dataset = _dataset(request, work, to_train=to_train).to(place.device)
    if to_train:
        dense.check_weights(work, dataset)
    profile = platform.profile(
        Subject(work.structure, work.build),
        samples=protocol.profile_samples,
        test_samples=protocol.profile_test_samples,
        batch=protocol.inference_batch,
        may_read=may_read,
    )
    fit = energy.fit(profile, work.structure, request.energy_model)
    return Setup(request, work, protocol, dataset, platform, work.structure, profile, fit, place)


def _dataset(request: Request, work: Workload, *, to_train: bool) -> Dataset:
    folder = None if request.data is None else Path(request.data)
    return work.load_data(folder) if folder or to_train else work.stand_in_data()
