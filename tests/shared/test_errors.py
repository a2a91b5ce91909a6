"""Messages fit in one line of UTF-8, whatever they name; output whose encoding lacks them takes them, too."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadFile, BadInput, printable

ANY = st.text(st.characters(exclude_categories=())) | st.binary().map(os.fsdecode)


@given(text=ANY)
def test_any_text_becomes_one_line_of_utf_8(text: str) -> None:
    told = printable(text)
    assert told.encode().decode() == told and len(told.splitlines()) <= 1
    assert printable(told) == told


@given(text=st.text())
def test_one_line_of_utf_8_stays_as_it_is(text: str) -> None:
    line = "".join(text.splitlines())
    assert printable(line) == line


@given(expected=ANY, got=ANY, hint=ANY, kind=st.sampled_from([BadInput, BadFile]))
def test_messages_are_such_lines_and_pass_between_processes(
    expected: str, got: str, hint: str, kind: type[BadInput]
) -> None:
    error = kind(expected, Path(got.replace("\0", "")), hint)
    assert printable(error) == str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.parts == error.parts


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_of_any_encoding_takes_any_path(encoding: str) -> None:
    lines = "from shared.host import print_any_text; print_any_text(); print('é – \\udce9 .')"
    done = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    expected = {"ascii": "? ? ? .", "latin-1": "é ? ? .", "utf-8": "é – ? ."}[encoding]
    assert done.stdout.decode(encoding).strip() == expected, done.stderr
