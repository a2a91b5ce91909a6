"""`python -m bench`."""

import os
import sys

from bench.cli.app import main

# Plots are files and need no backend, while importing matplotlib with one that isn't installed, as a notebook's may be,
# raises. Processes that this one starts inherit the change.
os.environ.pop("MPLBACKEND", None)
sys.exit(main())
