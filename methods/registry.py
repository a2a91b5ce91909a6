"""The registered methods: built-ins by import path, third parties through the entry-point group `bench.methods`.

Listing names imports no method, so that `--help` and error messages stay fast.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from shared.errors import BadInput

if TYPE_CHECKING:
    from methods.contract import Method

GROUP = "bench.methods"
BUILT_IN = {
    "ecc": "methods.ecc:ECC",
    "ecc-paper": "methods.ecc:ECCPaper",
    "ecc-invariant": "methods.ecc:ECCInvariant",
    "netadapt": "methods.netadapt:NetAdapt",
    "netadapt-original": "methods.netadapt:NetAdaptOriginal",
    "amc": "methods.amc:AMC",
    "eap": "methods.eap:EAP",
    "eap-weights": "methods.eap:EAPWeights",
    "wsp": "methods.wsp:WSP",
    "wsp-weights": "methods.wsp:WSPWeights",
    "wsp-masked": "methods.wsp:WSPMasked",
    "lcp": "methods.lcp:LcP",
    "legr": "methods.lcp:LeGR",
    "slimming": "methods.slimming:Slimming",
    "dense": "methods.controls.dense:Dense",
    "uniform": "methods.controls.uniform:Uniform",
    "uniform-gradual": "methods.ecc:UniformGradual",
    "random": "methods.controls.random:Random",
    "magnitude": "methods.controls.magnitude:Magnitude",
    "taylor": "methods.controls.taylor:Taylor",
}


def _sources() -> dict[str, str]:
    """Name -> "module:Class". A third party can't replace a built-in."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | BUILT_IN


def names() -> tuple[str, ...]:
    """Ids of all registered methods, built-ins first."""
    return tuple(BUILT_IN) + tuple(sorted(set(_sources()) - set(BUILT_IN)))


def get(name: str) -> Method:
    """An instance of the method `name`. Raises BadInput for an unknown name or a third party's broken package."""
    if name not in (sources := _sources()):
        raise BadInput(f"methods out of {', '.join(names())}", repr(name), "python -m bench methods")
    try:
        module, _, attribute = sources[name].partition(":")
        method: Method = getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        if name in BUILT_IN:  # our own defect: keep the traceback
            raise
        raise BadInput(
            f"a method at {sources[name]!r} (entry point {name!r} of {GROUP})",
            " ".join(f"{type(error).__name__}: {error}".split()),
            "repairing or uninstalling the package that registers it",
        ) from error
    return method
