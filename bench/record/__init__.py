"""The record of a run, the store of records, and loading a run's network."""
