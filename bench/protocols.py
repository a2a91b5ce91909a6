"""The named protocols. Learning rates come from `python -m bench tune`, whose grids are printed in
reports/learning-rate-<protocol>.md; for networks other than MobileNet in reports/learning-rate-<protocol>-<network>.md.
"""

from __future__ import annotations

from dataclasses import replace

from shared.errors import BadInput
from shared.protocol import Protocol

SMOKE = Protocol(
    name="smoke",
    iterations=60,
    fine_tune_iterations=10,
    batch_size=32,
    learning_rate=2e-3,
    budgets=(0.4,),
    seeds=(0,),
    search_images=64,
    minimum_short_term_iterations=1,
    episodes=8,
    stages=2,
    recalibration_batches=4,
    profile_samples=1_000,
    profile_test_samples=200,
    ranks=False,
)

QUICK = Protocol(
    name="quick",
    iterations=600,
    fine_tune_iterations=200,
    batch_size=64,
    learning_rate=4e-3,
    # AMC leaves every layer a fifth of its channels: 0.27 of dense on the simulated platforms
    budgets=(0.35, 0.3),
    seeds=(0,),
    search_images=500,
    minimum_short_term_iterations=5,
    episodes=100,
    stages=4,
    ranks=False,
)

# (protocol, network) -> learning rate, where MobileNet's is not near the best for the controls
LEARNING_RATES = {("quick", "alexnet"): 1e-3}

_PROTOCOLS = {protocol.name: protocol for protocol in (SMOKE, QUICK)}


def names() -> tuple[str, ...]:
    """Names of the protocols."""
    return tuple(_PROTOCOLS)


def get(name: str, network: str = "mobilenet") -> Protocol:
    """The protocol `name` with the learning rate for `network`. Raises BadInput when there is none."""
    if name not in _PROTOCOLS:
        raise BadInput(f"a protocol out of {', '.join(_PROTOCOLS)}", repr(name), "--protocol quick")
    protocol = _PROTOCOLS[name]
    return replace(protocol, learning_rate=LEARNING_RATES.get((name, network), protocol.learning_rate))
