"""Child processes of a run: started with their output kept, measured as whole trees, stopped whatever happens."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

ROOT = Path(__file__).resolve().parent.parent
PENSTOCK = str(Path(sys.executable).with_name("penstock"))
START_S = 20.0
STOP_S = 5.0
PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """The run cannot go on; the text says why."""


class Child:
    """One server under test or beside it, with all processes it forks."""

    def __init__(self, *argv: str, env: dict[str, str] | None = None) -> None:
        number, name = tempfile.mkstemp(prefix="bench-", suffix=".log")
        self.name = Path(argv[0]).name
        self.output = Path(name)
        with os.fdopen(number, "wb") as sink:
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                preexec_fn=_end_with_parent,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tree = self.tree()
        self.process.terminate()
        for each in psutil.wait_procs(tree, timeout=STOP_S)[1]:
            each.kill()
        self.process.wait()
        if error is not None and (text := self.text().strip()):
            print(f"--- {self.name} wrote:\n{text[-2000:]}", file=sys.stderr)
        self.output.unlink(missing_ok=True)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """The first match of `pattern` in the output. Raises Failure."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            if found := re.search(pattern, self.text()):
                return found
            time.sleep(0.01)
        raise Failure(f"{self.name} did not start")

    def tree(self) -> list[psutil.Process]:
        """The process and all it forked."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """User and system time of every thread of the tree, in seconds."""
        return sum(cpu_s(each.pid) for each in self.tree())

    def unique_bytes(self) -> int:
        """Memory that would be free if the tree ended (USS)."""
        return sum(each.memory_full_info().uss for each in self.tree())


def cpu_s(pid: int) -> float:
    """CPU time of one process, its ended threads included.

    The kernel's CPU clock of another process (clock_getcpuclockid(3)): what /proc/PID/stat tells as utime + stime,
    but in nanoseconds, where stat cuts both to 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def _end_with_parent() -> None:
    """In the child: SIGTERM if the driver dies without having stopped it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
