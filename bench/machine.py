"""Where a run took place: a figure without machine and versions is a rumour."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.processes import PENSTOCK, Failure

RELEASE_BUILD = "make a release one: SETUPTOOLS_RUST_CARGO_PROFILE=release pip install -e ."
NGINX_MISSING = "nginx is needed as the reference: apt-get install nginx-light"


def check() -> None:
    """Refuse to measure what would say nothing. Raises Failure."""
    from penstock.ext import BUILD_PROFILE

    if sys.platform != "linux":
        raise Failure("the benchmark reads Linux's CPU clocks; it runs nowhere else")
    if BUILD_PROFILE != "release":
        raise Failure(f"penstock.ext is a {BUILD_PROFILE} build; {RELEASE_BUILD}")
    if nginx() is None:
        raise Failure(NGINX_MISSING)
    if not Path(PENSTOCK).exists():
        raise Failure(f"{PENSTOCK} is not there: run the benchmark with the Python that penstock is installed for")


def nginx() -> str | None:
    """nginx's program; /usr/sbin is not in everybody's PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def describe() -> dict[str, str | float]:
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    return {
        "penstock": version("penstock"),
        "python": platform.python_version(),
        "granian": version("granian"),
        "uvloop": version("uvloop"),
        "nginx": _nginx_version(),
    }


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _nginx_version() -> str:
    program = nginx()
    assert program is not None
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return told.strip().rpartition("/")[2]
