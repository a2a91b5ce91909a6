"""Errors that more than one room raises or catches."""

from __future__ import annotations


def printable(text: object) -> str:
    """`text` on one line that every file and terminal in UTF-8 takes.

    Line breaks become spaces. Bytes of a path that are no UTF-8 are lone surrogates in Python; they become `\\udcXX`.
    """
    return " ".join(str(text).splitlines()).encode(errors="backslashreplace").decode()


class BadInput(ValueError):
    """Something that a person typed or placed on disk is wrong.

    The message is one line: what was expected, what was got, what to try. The command line prints it and exits with 2.
    """

    def __init__(self, expected: str, got: object, hint: str) -> None:
        self.parts = tuple(map(printable, (expected, got, hint)))
        super().__init__("expected {}, got {}; try {}".format(*self.parts))

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, ...]]:  # pickled on the way from a worker process
        return type(self), self.parts


class BadFile(BadInput):
    """A data set's file can't be used, which shows only when it is read. It is never recorded as a method's miss."""


class Infeasible(Exception):
    """No widths within the caller's bounds meet the budget, or a search ended without finding any.

    The harness records it as the method's miss, with the message as the reason, and the plan goes on.
    """
