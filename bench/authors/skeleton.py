"""A new method as a package of its own: one file, one class, one registration, and it runs at once."""

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

        # 1. Which widths? A unit is a layer whose input channels can go; its width says how many stay. Ê of widths:
        #    task.energy(widths), its limit: task.budget. As a start: one multiplier for all. Decisions that
        #    need data look at task.search_accuracy(network), never at anything else. What is random is drawn from
        #    task.generator("purpose"). Raise methods.contract.Infeasible where the budget is out of reach.
        widths = task.uniform_widths()

        # 2. Which channels? The norm of what reads them, here.
        dead = weakest_channels(importance(network, table), widths, table.upper_bounds)

        # 3. Training. Each trainer.step() is one iteration of the ledger; all of them are to be spent. With the
        #    optimiser given, zero_channels clears the momentum too: the dead stay dead while training goes on.
        trainer = task.trainer(network)
        zero_channels(network, table, dead, trainer.optimizer)
        # A loop of your own calls task.save("name", state) in each iteration, and task.saved("name") before the first,
        # so that a run of days can be stopped; spend_remaining does.
        spend_remaining(task, trainer)

        # The zeros are cut out, the small network fine-tuned and measured by the suite, for everyone alike.
        return Outcome(network, notes={"widths": list(widths)})
''')


def write(name: str, folder: Path) -> list[Path]:
    """Write the package of the method `name` into the new folder `folder`/bench-`name`; returns its files.

    Raises BadInput for a name that is taken or no name, and where the folder exists or can't be written.
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
