"""Fits the free constants of the simulated platforms and writes them into their data files.

    python -m bench.studies.calibrate

Targets are the six dense joules that the ECC paper prints (Yang, Zhu, Liu, CVPR 2019, section 4.2) and the AlexNet
model for the TX2 that its authors published with their code. They leave most constants undetermined. Log-normal priors
and a few anchors determine the rest; each is this suite's judgement, listed below with its width. No ranking of
compression methods enters.

The TX2 is fitted first, since the only measured split of energy over layers is of the TX2. The 1080 Ti follows. Its
energy per operation is bounded below by the TX2's, since its voltage and clock are higher, and the power of the busy
chip is left free to compensate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.optimize

from shared import networks
from shared.energy import BilinearModel
from shared.networks.units import Structure
from shared.platforms import parameters
from shared.platforms.kernels import Array
from shared.platforms.parameters import Parameters
from shared.platforms.simulator import simulate
from shared.rng import numpy_generator

OUTPUTS = {"mobilenet": 1001, "alexnet": 1000, "erfnet": 20}  # the paper's; inputs are the networks' own defaults
PUBLISHED_DENSE_JOULES = {
    "1080ti": {"mobilenet": 0.2877, "alexnet": 0.2339, "erfnet": 1.9708},
    "tx2": {"mobilenet": 0.0487, "alexnet": 0.0498, "erfnet": 1.3213},
}
# The authors' AlexNet model for the TX2: joules of each product of neighbouring widths in the dense network.
PUBLISHED_LAYER_JOULES = {
    "conv1": 0.0022337078,
    "conv2": 0.0075399503,
    "conv3": 0.0039092554,
    "conv4": 0.0049406695,
    "conv5": 0.0033930999,
    "fc6": 0.0161565151,
    "fc7": 0.0072140638,
    "fc8": 0.0019541800,
}
PUBLISHED_INTERCEPT_JOULES = 0.0024820673
FIT_ROWS = 400  # width vectors of each bilinear fit
STEP = 0.01  # of the logarithms, for the finite differences of least squares
DIGITS = 5  # significant digits of a fitted value, in the files and in the report


class Prior(NamedTuple):
    """Log-normal around `centre` with standard deviation `sigma` of the logarithm; None leaves the value free."""

    centre: float
    sigma: float | None
    lower: float = 1e-15
    upper: float = 1e3


PRIORS = {
    "tx2": {
        "idle_w": Prior(0.50, 0.10),
        "busy_w": Prior(1.8, 0.40),
        "flop_j": Prior(9e-12, 0.40),
        "l2_byte_j": Prior(30e-12, 0.40),
        "dram_byte_j": Prior(10e-12, 0.40),
        "gemm_efficiency": Prior(0.60, 0.15, upper=0.95),
        "pointwise_efficiency": Prior(0.60, 0.40, upper=1.0),
        "dram_efficiency": Prior(0.80, 0.07, upper=0.95),
        "gemv_efficiency": Prior(0.70, 0.25, upper=0.95),
        "depthwise_instructions_per_tap": Prior(41, 0.20),
        "host_call_s": Prior(60e-6, 0.15),
        "kernel_gap_s": Prior(6e-6, 0.25),
    },
    "1080ti": {
        "idle_w": Prior(52, 0.10),
        "busy_w": Prior(60, None, upper=200),
        "busy_floor": Prior(0.40, 0.20, upper=1.0),
        "flop_j": Prior(7e-12, 0.40),  # its lower bound is the TX2's fitted value
        "l2_byte_j": Prior(15e-12, 0.40),
        "dram_byte_j": Prior(90e-12, 0.40),
        "gemm_efficiency": Prior(0.65, 0.15, upper=0.95),
        "pointwise_efficiency": Prior(0.60, 0.40, upper=1.0),
        "dram_efficiency": Prior(0.85, 0.07, upper=0.95),
        "gemv_efficiency": Prior(0.50, 0.25, upper=0.95),
        "depthwise_instructions_per_tap": Prior(41, 0.20),
        "host_call_s": Prior(24e-6, 0.15),
        "kernel_gap_s": Prior(4e-6, 0.25),
    },
}


class Anchor(NamedTuple):
    """A quantity of the simulation that should be near a target."""

    name: str
    value: float  # as simulated
    target: float
    sigma: float  # tolerance of log(value / target)
    source: str  # where the target comes from


@dataclass(frozen=True)
class Rows:
    """A network and the positions at which it is simulated: dense, all ones, then FIT_ROWS uniform ones for a fit."""

    structure: Structure
    positions: Array

    @classmethod
    @cache
    def of(cls, network: str) -> Rows:
        structure = networks.structure(networks.build(network, num_classes=OUTPUTS[network]))
        dense = np.array(structure.position_bounds)
        sampled = numpy_generator(0, f"calibration/{network}").integers(1, dense + 1, size=(FIT_ROWS, dense.size))
        positions = np.vstack([dense, np.ones_like(dense), sampled]).astype(np.float64)
        positions[:, [0, -1]] = dense[[0, -1]]
        return cls(structure, np.asfortranarray(positions))

    def simulated(self, chip: Parameters, *, with_samples: bool = False) -> tuple[Array, Array]:
        """Joules and seconds at batch 1: the dense network's, the all-ones network's, then the samples'."""
        outcome = simulate(self.structure.operations, self.positions if with_samples else self.positions[:2], 1, chip)
        return outcome.joules, outcome.seconds

    def bilinear(self, joules: Array) -> BilinearModel:
        """The energy model of the samples' joules."""
        return BilinearModel.fit(self.positions[2:], joules[2:], upper_bounds=self.structure.position_bounds)


def anchors(platform: str, chip: Parameters, tx2: Parameters) -> list[Anchor]:
    """The anchors of a platform, simulated with the constants `chip`; one of the 1080 Ti's depends on the TX2's."""
    fitted_networks = ("mobilenet", "alexnet") if platform == "tx2" else ()
    joules, seconds = {}, {}
    for network in OUTPUTS:
        joules[network], seconds[network] = Rows.of(network).simulated(chip, with_samples=network in fitted_networks)
    dense = [
        Anchor(f"{network} dense J", joules[network][0], target, 0.005, "published")
        for network, target in PUBLISHED_DENSE_JOULES[platform].items()
    ]
    erfnet_s = seconds["erfnet"][0]
    if platform == "tx2":
        # The smallest budget in the authors' example must lie above their intercept, and is assumed to lie near it.
        floor = Rows.of("mobilenet").bilinear(joules["mobilenet"]).intercept.item()
        return [
            *dense,
            *_layer_split(Rows.of("alexnet").bilinear(joules["alexnet"])),
            Anchor("mobilenet intercept J", floor, 0.0077, 0.10, "authors' example budget"),
            Anchor("erfnet dense s", erfnet_s, 0.21, 0.30, "7 frames/s at 640x360 on a TX1, scaled"),
        ]
    ones = 1 - _compressible_share(joules["mobilenet"])
    share = _compressible_share(joules["erfnet"])
    # Budgets of near-equal accuracy in the paper's table 2 remove 0.85 of the share that they remove on the TX2.
    target = 0.85 * _erfnet_compressible_share(tx2)
    return [
        *dense,
        Anchor("mobilenet all ones / dense", ones, 0.5, 0.08, "assumed: leaves room for four budgets"),
        Anchor("erfnet compressible share", share, target, 0.25, "inferred"),
        Anchor("erfnet dense s", erfnet_s, 0.016, 0.30, "83 frames/s at 640x360 on a Titan X, scaled"),
    ]


def _layer_split(alexnet: BilinearModel) -> list[Anchor]:
    layers = zip(PUBLISHED_LAYER_JOULES.items(), alexnet.coefficients.tolist(), strict=True)
    intercept = alexnet.intercept.item()
    return [
        *(Anchor(f"alexnet {layer} J", joules, target, 0.12, "authors' model") for (layer, target), joules in layers),
        Anchor("alexnet intercept J", intercept, PUBLISHED_INTERCEPT_JOULES, 0.30, "authors' model"),
    ]


def _compressible_share(joules: Array) -> float:
    dense, ones = joules[:2]
    return float(1 - ones / dense)


@cache
def _erfnet_compressible_share(chip: Parameters) -> float:
    return _compressible_share(Rows.of("erfnet").simulated(chip)[0])


def residuals(platform: str, chip: Parameters, tx2: Parameters) -> Array:
    """The residuals of least squares: log ratios to anchors and priors, in units of their tolerances."""
    pulls = [math.log(anchor.value / anchor.target) / anchor.sigma for anchor in anchors(platform, chip, tx2)]
    priors = PRIORS[platform].items()
    pulls += [math.log(getattr(chip, name) / prior.centre) / prior.sigma for name, prior in priors if prior.sigma]
    return np.array(pulls)


def calibrated(platform: str, chip: Parameters, tx2: Parameters) -> Parameters:
    """`chip` with the values of PRIORS[platform] fitted by least squares on logarithms, from the priors' centres."""
    priors = dict(PRIORS[platform])
    if platform != "tx2":
        priors["flop_j"] = priors["flop_j"]._replace(lower=tx2.flop_j)
    lower, upper = (np.log([getattr(prior, side) for prior in priors.values()]) for side in ("lower", "upper"))
    start = np.clip(np.log([prior.centre for prior in priors.values()]), lower + 1e-6, upper - 1e-6)

    def at(logs: Array) -> Parameters:
        return dataclasses.replace(chip, **dict(zip(priors, np.exp(logs).tolist(), strict=True)))

    def pulls(logs: Array) -> Array:
        return residuals(platform, at(logs), tx2)

    def slopes(logs: Array) -> Array:
        # Joules jump where a kernel changes its tile. Differences much finer than STEP would see only these jumps.
        columns = [pulls(logs + shift) - pulls(logs - shift) for shift in STEP * np.eye(logs.size)]
        return np.column_stack(columns) / (2 * STEP)

    fitted = at(scipy.optimize.least_squares(pulls, start, jac=slopes, bounds=(lower, upper)).x)
    return dataclasses.replace(fitted, **{name: float(f"{getattr(fitted, name):.{DIGITS}g}") for name in priors})


def main(write: Callable[[str], None] = print) -> None:
    """Calibrate both platforms, rewrite the fitted values of their data files, and print values and residuals."""
    tx2, _ = parameters.load(parameters.FOLDER / "tx2.toml")
    for platform in ("tx2", "1080ti"):
        path = parameters.FOLDER / f"{platform}.toml"
        chip = calibrated(platform, parameters.load(path)[0], tx2)
        tx2 = chip if platform == "tx2" else tx2
        rewrite(path, {name: getattr(chip, name) for name in PRIORS[platform]})
        report(platform, chip, anchors(platform, chip, tx2), write)


def rewrite(path: Path, values: dict[str, float]) -> None:
    """Replace the `value` lines of the named entries in place; everything else in the file stays."""
    lines, entry = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            entry = line.strip("[]")
        lines.append(f"value = {values[entry]:.{DIGITS}g}" if line.startswith("value =") and entry in values else line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def report(platform: str, chip: Parameters, targets: list[Anchor], write: Callable[[str], None]) -> None:
    """Print the fitted values beside their priors, the residuals, and time, power and floor of each network."""
    write(f"\n## {platform}\n\n| value | fitted | prior | prior sigmas off |\n|---|---|---|---|")
    for name, prior in PRIORS[platform].items():
        value = getattr(chip, name)
        pull = f"{math.log(value / prior.centre) / prior.sigma:+.1f}" if prior.sigma else "free"
        write(f"| {name} | {value:.4g} | {prior.centre:.3g} | {pull} |")
    write("\n| quantity | simulated | target | simulated / target | tolerance | target is |\n|---|---|---|---|---|---|")
    for anchor in targets:
        ratio = anchor.value / anchor.target
        write(
            f"| {anchor.name} | {anchor.value:.4g} | {anchor.target:.4g} | {ratio:.3f} | {anchor.sigma:.1%} |"
            f" {anchor.source} |"
        )
    write("\n| network | dense J | dense ms | mean W | all ones J | all ones / dense |\n|---|---|---|---|---|---|")
    for network in OUTPUTS:
        (dense, ones), (seconds, _) = Rows.of(network).simulated(chip)
        write(
            f"| {network} | {dense:.4f} | {seconds * 1e3:.2f} | {dense / seconds:.1f} | {ones:.4f} |"
            f" {ones / dense:.3f} |"
        )


if __name__ == "__main__":
    main()
