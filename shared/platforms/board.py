"""A board that measures by itself what is written for it, in a folder by hand or over SSH: the Jetson TX2.

Its Python is too old for this suite, see shared/board/runner.py.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from shared.board import runner
from shared.board.exchange import BoardMeasurement, operation_list, read_measurement, write_operations
from shared.cache import cache_dir, content_key
from shared.errors import BadInput
from shared.meters import FULL, SHORT, MeterError, Reading, Settings, device_lock
from shared.meters.jetson.rails import scope
from shared.meters.meter import Source
from shared.meters.reading import Visit, summarise
from shared.platforms import simulated
from shared.platforms.hardware import Hardware
from shared.platforms.measured import WAIT_S
from shared.platforms.platform import Subject

AT_ONCE = 150  # networks of a profile for one errand of a person, enough for most; over SSH they go as elsewhere
LANDING_AT_ONCE = 30  # widths for one such errand: two or three errands land a network
THERE = "energy-compression-bench"  # folder on the board, in the home of who logs in
# A question for a password would never be seen, and a board that has lost its power would be waited for without end.
SSH = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=20")
ON_CPU = "ran on the board's CPU"


class BoardPlatform(Hardware):
    """A board, and the rail that its runner samples there.

    name: as `--device` calls it. model: what the board's device tree has to say. rail: its label, or "" for times
    alone. place: a folder for what goes to and fro by hand (told by a "/" in it), else a host for SSH.

    What a list of networks has been measured to lies under the hash of list and rail: the same question is never asked
    twice, and a command that ends for want of measurements goes on when they are there. Weights are random there.
    """

    source: Literal["measured"] = "measured"

    def __init__(self, name: str, model: str, rail: str, place: str) -> None:
        self.name, self.model, self.rail = name, model, rail
        self.unit: Literal["J", "s"] = "J" if rail else "s"
        self._by_hand = "/" in place
        self._place = place
        self.keeps = self.folder = Path(place) if self._by_hand else cache_dir() / "boards" / place
        self._sensor = Source("board", scope(rail) if rail else "wall time", self.unit, "integral" if rail else "clock")
        self.meter = f"the board's runner ({self._sensor.scope})"
        self.host = f"{model}, on its own"
        where = str(self.folder.resolve()) if self._by_hand else place
        self.calibration = content_key(model, rail, where, runner.VERSION)[:12]
        self.full, self.short = FULL, SHORT
        if self._by_hand:
            self.block, self.at_once = AT_ONCE, LANDING_AT_ONCE

    def read(self, subject: Subject, widths: Sequence[Sequence[int]], batch: int, settings: Settings) -> list[Reading]:
        """One reading per image for each row of `widths`, from as many windows as the settings have visits.

        Raises MeterError where measurements are still to be made (by hand), or the board can't be reached.
        """
        there = list(range(len(widths)))
        order = (there + there[::-1]) * (settings.visits // 2)
        rows = subject.structure.positions([list(row) for row in widths])[order]
        document = operation_list(
            subject.structure.operations,
            rows,
            batch=batch,
            repeats=settings.runs,
            window_s=settings.window_s,
            warm_up_s=settings.warmup_s,
        )
        with device_lock(f"board {self._place}", f"reading {self.name}", wait_s=WAIT_S, say=self.say):
            measurement = self._measurement(document)
        visits: list[list[Visit]] = [[] for _ in there]
        aside = (ON_CPU,) * (measurement.device == "cpu")
        for window in measurement.windows:
            amount = window.seconds if window.joules is None else window.joules
            runs, flags = window.images // batch, (*window.flags, *aside)
            visit = Visit(amount, window.quantum_joules or 0.0, window.seconds, runs, window.samples, flags)
            visits[order[window.row]].append(visit)
        facts: dict[str, object] = {"device": measurement.device, **measurement.versions}
        return [summarise(self._sensor, done, measurement.idle_watts, settings, facts) for done in visits]

    def inference_batch(self, subject: Subject) -> int:
        """That of the board's simulation: finding one there would take an errand for each."""
        return simulated.get(self.name).inference_batch(subject.structure.operations, subject.structure.position_bounds)

    def _measurement(self, document: dict[str, Any]) -> BoardMeasurement:
        """What the board has measured of the list; one that isn't measured yet is written, and over SSH measured."""
        key = content_key(runner.fingerprint(document), self.rail)[:12]
        operations, result = self.folder / f"operations-{key}.json", self.folder / f"measured-{key}.json"
        if not result.exists():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_operations(operations, document)
                shutil.copyfile(runner.__file__, self.folder / "runner.py")
            except OSError as error:
                got = f"{self.folder} ({error.strerror})"
                raise BadInput("a folder for the board's files", got, "another folder") from None
            command = ["python3", "runner.py", operations.name, "--out", result.stem]
            command += ["--rail", self.rail] if self.rail else []
            if self._by_hand:
                raise MeterError(
                    f"{result.name} and its .csv in {self.folder}",
                    "none yet",
                    f"in a copy of that folder on the board: {shlex.join(command)}",
                )
            self._fetch(operations, result, command, len(document["positions"]) * document["window_s"])
        measurement = read_measurement(document, result)
        rows = [window.row for window in measurement.windows]
        if rows != list(range(len(document["positions"]))):
            raise BadInput(f"a window for each row of {operations}", f"{len(rows)} windows", "measuring anew")
        if self.model not in (board := measurement.versions.get("board", "")):
            got = board or "a board that doesn't tell its model"
            raise BadInput(f"measurements of a {self.model} in {result}", got, "the board that --device names")
        if self.rail != (measurement.rail or ""):
            expected = f"measurements of {self.rail or 'times alone'} in {result}"
            raise BadInput(expected, measurement.rail or "times alone", "--meter board with the rail that was measured")
        return measurement

    def _fetch(self, operations: Path, result: Path, command: list[str], least_s: float) -> None:
        """Have the board measure a list, over SSH; both files of the result, or none, are in the folder then."""
        host = self._place
        self.say(f"{host} measures {operations.name}, {least_s / 60:.0f} min of windows and about as much around them")
        self._run("ssh", *SSH, host, f"mkdir -p {THERE}")
        self._run("scp", "-q", *SSH, str(self.folder / "runner.py"), str(operations), f"{host}:{THERE}/")
        self._run("ssh", *SSH, host, f"cd {THERE} && {shlex.join(command)}")
        arriving = self.folder / "arriving"
        arriving.mkdir(exist_ok=True)
        for suffix in (".csv", ".json"):
            self._run("scp", "-q", *SSH, f"{host}:{THERE}/{result.stem}{suffix}", str(arriving))
        for suffix in (".csv", ".json"):  # the JSON last: with it the measurement is there
            (arriving / f"{result.stem}{suffix}").replace(result.with_suffix(suffix))

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
            )
        except OSError as error:
            raise MeterError(f"the program {command[0]}", error.strerror, "installing OpenSSH, or a folder") from None
        if done.returncode:
            got = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise MeterError(f"{command[0]} to {self._place} to succeed", repr(got), f"ssh {self._place} by hand first")
