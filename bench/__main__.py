"""`python -m bench`."""

import os
import sys
from pathlib import Path

# With -m Python looks in the working directory first, where a user's own files may have the names of modules that the
# suite needs. Processes that this one starts inherit the change, as the server that runs are forked from must.
if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()) and Path.cwd() != Path(__file__).parents[1]:
    sys.path.pop(0)
os.environ["PYTHONSAFEPATH"] = "1"
# Plots are files and need no backend, while importing matplotlib with one that isn't installed, as a notebook's may be,
# raises. Processes that this one starts inherit the change.
os.environ.pop("MPLBACKEND", None)

from bench.cli.app import main  # after the changes above

sys.exit(main())
