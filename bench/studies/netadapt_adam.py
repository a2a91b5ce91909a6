"""What NetAdapt gains where Adam goes on from step to step. In the published codes each candidate starts a new one.

The page is made by

    python -m bench.studies.netadapt_adam reports
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.studies.choices import Choice
from methods.contract import Method
from methods.netadapt import NetAdapt, NetAdaptOriginal

VARIANTS: dict[str, Method] = {
    "netadapt, a new Adam each": NetAdapt(keeps_moments=False),
    "netadapt, one Adam": NetAdapt(),
    "original, a new Adam each": NetAdaptOriginal(keeps_moments=False),
    "original, one Adam": NetAdaptOriginal(),
}


def _verdict(means: Mapping[str, float]) -> str:
    new, one, new_original, one_original = (means[name] for name in VARIANTS)
    return (
        f"In the mean one Adam is worth {one - new:+.2f} points to `netadapt` and {one_original - new_original:+.2f} "
        "to `netadapt-original`. Both have it."
    )


CHOICE = Choice(
    "netadapt-adam",
    "NetAdapt's optimiser",
    "Each candidate is trained by a new Adam, or one Adam goes on with the moments of the network that a step starts "
    "from.",
    VARIANTS,
    _verdict,
)

if __name__ == "__main__":
    CHOICE.main()
