"""Errors that more than one room raises or catches."""

from __future__ import annotations


class BadInput(ValueError):
    """Something a person typed or placed on disk is wrong; the message fits on one line.

    The message says what was expected, what was got and what to try. The command line prints it and exits with 2.
    """

    def __init__(self, expected: str, got: object, hint: str) -> None:
        super().__init__(f"expected {expected}, got {got}; try {hint}")
        self.parts = expected, str(got), hint

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str, str]]:  # it may come from another process
        return type(self), self.parts


class BadFile(BadInput):
    """A file of a data set that can't be used, found when it is read: nobody's work on the data is to blame for it."""


class Infeasible(Exception):
    """The budget can't be reached within the bounds of the method that asked, or nothing was found that reaches it.

    The harness records a miss with this message as its reason; the plan goes on.
    """
