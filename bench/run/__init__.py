"""From a setup to records: the five stages of a run, the rules of an outcome, and the processes that do the work."""
