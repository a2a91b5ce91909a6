"""Writes a new method as a package of its own, which runs as it is: one file, one class, one registration."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from methods import registry
from shared.errors import BadInput

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PROJECT = Template("""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "bench-$name"
version = "0.1.0"

# The registration: the id on the command line = module:class.
[project.entry-points."bench.methods"]
$name = "$module:$class_name"

[tool.hatch.build.targets.wheel]
only-include = ["$module.py"]
""")

METHOD = Template('''"""$title: what the method does, in a line.

Authors, "Title of the paper", venue and year; sections and equations at the lines that they explain.
"""

from methods.contract import Method, Outcome, Properties, Task, spend_remaining
from shared.networks import importance, zero_channels
from shared.networks.ranking import weakest_channels


class $class_name(Method):
    """What is removed, when and why. Departures from the paper, each with its reason."""

    name, title = "$name", "$title"  # the id on the command line; how tables call it
    paper = "Authors: Title. Venue Year"
    # The rows of the ECC paper's Table 1. A control has None.
    properties = Properties(direct_metric=True, targets_energy=True, optimization_based=False, platform_free=True)

    def run(self, task: Task) -> Outcome:
        """Compress the dense network to the budget; spends the ledger exactly."""
        # task.network is the dense network and stays as it is; the copy is yours.
        network, table = task.copy_of_dense(), task.structure

        # 1. Choose the widths. A unit is a layer whose input channels can be removed; its width is how many are left.
        #    task.energy(widths) is their Ê, which must be within task.budget. This start takes one multiplier for all.
        #    Decisions that need data take task.search_accuracy(network), the score on a validation split, alone.
        #    Random numbers come from task.generator("purpose"). Raise methods.contract.Infeasible where the budget is
        #    out of reach.
        widths = task.uniform_widths()

        # 2. Choose the channels: here those whose weights in the layer that reads them have the least norm.
        dead = weakest_channels(importance(network, table), widths, table.upper_bounds)

        # 3. Train. Each trainer.step() spends one iteration of the ledger; the method must spend all of them. With the
        #    optimiser as argument, zero_channels clears the momentum too, so that dead channels stay dead in training.
        trainer = task.trainer(network)
        zero_channels(network, table, dead, trainer.optimizer)
        # A training loop of your own calls task.saved("name") before the first iteration and task.save("name", state)
        # in each one, as spend_remaining does, so that a run of days can be stopped and resumed.
        spend_remaining(task, trainer)

        # The suite cuts the zeroed channels out, and fine-tunes and measures the small network.
        return Outcome(network, notes={"widths": list(widths)})
''')


def write(name: str, folder: Path) -> list[Path]:
    """Write the package of the method `name` into the new folder `folder`/bench-`name`; returns its files.

    Raises BadInput for a name that is taken or malformed, and where the folder exists or can't be written.
    """
    if not _NAME.fullmatch(name):
        raise BadInput("a name of small letters, digits and single hyphens", repr(name), "new-method my-method")
    if name in registry.names():
        raise BadInput("the name of a method that is not there yet", repr(name), "another name")
    module = f"bench_{name.replace('-', '_')}"
    words = name.split("-")
    texts = {
        "name": name,
        "module": module,
        "title": " ".join(words).capitalize(),
        "class_name": "".join(word.capitalize() for word in words),
    }
    place = folder / f"bench-{name}"
    try:
        place.mkdir(parents=True)
        files = {place / "pyproject.toml": PROJECT, place / f"{module}.py": METHOD}
        for path, template in files.items():
            path.write_text(template.substitute(texts), encoding="utf-8")
    except OSError as error:
        raise BadInput("a folder that can be made", f"{place} ({error.strerror})", "--to FOLDER") from None
    return list(files)
