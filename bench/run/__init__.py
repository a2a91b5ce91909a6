"""From a setup to records: the five stages of a run, the rules for outcomes, and the worker processes."""
