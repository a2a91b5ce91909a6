"""The record of a run, the store that holds records, and the way back to a network."""
