"""`python -m bench`."""

import os
import sys
from pathlib import Path

# A user's own shared.py in the working directory must not stand in for the suite's package of that name: not here, and
# not in the server that runs are forked from, which would look there first.
sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["PYTHONSAFEPATH"] = "1"
# Plots are files and need no backend, while importing matplotlib with one that isn't installed, as a notebook's may be,
# raises. Processes that this one starts inherit the change.
os.environ.pop("MPLBACKEND", None)

from bench.cli.app import main  # after the changes above

sys.exit(main())
