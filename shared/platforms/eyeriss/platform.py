"""The chip as the rest of the suite sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

import numpy as np

from shared.cache import content_key
from shared.energy import ZeroSavings
from shared.errors import BadInput
from shared.platforms.eyeriss import closed_form
from shared.platforms.eyeriss.chip import LAYERS, Accesses, Density, Layer, chip, layer
from shared.platforms.platform import Breakdown, ExactPlatform, Rows, Subject

MODEL_REVISION = 1  # raise it whenever a formula changes a joule
BITS = range(1, 17)
_PARTS = ("compute", "register file", "buffer", "DRAM weights", "DRAM inputs", "DRAM outputs")


class EyerissPlatform(ExactPlatform):
    """Joules of convolutions and linear layers by the closed form; biases, batch norm and pooling cost none.

    The images of an inference batch share one fetch of the weights. bits: of weights and feature maps alike. density:
    by an operation's name, where tensors hold zeros; without it they are dense. Raises BadInput for other bits.
    """

    name = "eyeriss"
    source: Literal["simulated"] = "simulated"
    unit: Literal["J"] = "J"
    meter, host = "closed form", None

    def __init__(self, bits: int | None = None, density: Mapping[str, Density] | None = None) -> None:
        self.bits = chip().bits if bits is None else bits
        if self.bits not in BITS:
            raise BadInput(f"--bits from {BITS[0]} to {BITS[-1]} for {self.name}", self.bits, "16, the chip's own")
        self.name += "" if self.bits == chip().bits else f"-{self.bits}bit"
        self.density = dict(density or {})
        densities = {name: tuple(value) for name, value in self.density.items()}
        self.calibration = content_key(MODEL_REVISION, asdict(chip()), self.bits, densities)[:12]
        self.usual_batch = chip().images

    def breakdown(self, subject: Subject, rows: Rows, batch: int) -> Breakdown:
        """Joules per image by layer and by level of the memory; what DRAM moves is told apart."""
        positions = subject.structure.positions(rows).numpy()
        operations = [operation for operation in subject.structure.operations if operation.kind in LAYERS]
        joules = np.zeros((len(rows), len(operations), len(_PARTS)))
        for index, operation in enumerate(operations):
            counts = closed_form.accesses(
                layer(operation, positions),
                self.density.get(operation.name, Density()),
                chip(),
                images=batch,
                bits=self.bits,
                first=operation.inputs.position == 0,
            )
            for (level, datum), amounts in chip().joules(counts, self.bits).items():
                joules[:, index, _PARTS.index(f"DRAM {datum}" if level == "DRAM" else level)] += amounts
        return Breakdown(tuple(operation.name for operation in operations), _PARTS, joules)

    def zeros(self, subject: Subject, batch: int) -> ZeroSavings:
        """A zero makes no product, and is not stored where the code of its tensor pays."""
        positions = np.array([subject.structure.position_bounds], dtype=np.float64)
        product, fetch, entries, shown, input_fetch = {}, {}, {}, {}, {}
        for operation in subject.structure.operations:
            if operation.kind not in LAYERS:
                continue
            shape = layer(operation, positions)
            density = self.density.get(operation.name, Density())

            def joules(
                density: Density, shape: Layer = shape, first: bool = operation.inputs.position == 0
            ) -> Accesses:
                counts = closed_form.accesses(shape, density, chip(), images=batch, bits=self.bits, first=first)
                return chip().joules(counts, self.bits)

            dense, without = joules(density._replace(weights=1.0)), joules(density._replace(weights=0.0))
            saved = {cause: float(dense[cause][0] - without[cause][0]) for cause in dense}
            name, weights = f"{operation.module}.weight", float(shape.weights[0])
            of_weights = sum(amount for (level, _), amount in saved.items() if level in ("buffer", "DRAM"))
            product[name], fetch[name] = (sum(saved.values()) - of_weights) / weights, of_weights / weights
            entries[name], shown[name] = int(weights), shape.padded[0] * shape.padded[1]
            full, none = joules(Density(inputs=1.0)), joules(Density(inputs=0.0))
            values = float(shape.maps[0]) * shown[name]
            input_fetch[name] = float(full["DRAM", "inputs"][0] - none["DRAM", "inputs"][0]) / values
        return ZeroSavings(product, fetch, entries, shown, input_fetch, chip().enlarged(self.bits))
