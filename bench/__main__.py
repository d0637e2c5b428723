"""`python -m bench`: penstock beside nginx, measured in turn on this machine. README.md here tells the method."""

import argparse
import asyncio
import resource
import signal
import sys
from pathlib import Path

import uvloop

from bench import machine, report
from bench.figures import Figure, say
from bench.processes import Failure
from bench.scenarios import FULL, SHORT, Scenario
from bench.stand import stand
from bench.stream import GAP_S

GATE_FAILED = 1
CANNOT_RUN = 2


def main() -> int:
    """Exit code 0 = measured, 1 = a gate failed (with --gate), 2 = could not be measured."""
    arguments = _parser().parse_args()
    try:
        machine.check()
        place, versions = machine.describe(), machine.versions()
        chosen = {name: (SHORT if arguments.short else FULL)[name] for name in arguments.only}
        _raise_file_limit()
        figures = uvloop.run(_run(chosen))
    except (Failure, TimeoutError) as error:
        say(f"bench: {error or 'a scenario took too long'}")
        return CANNOT_RUN
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("bench: stopped")
        return CANNOT_RUN
    print(report.markdown(place, versions, figures))
    if arguments.json is not None:
        report.write_json(arguments.json, place, versions, figures, short=arguments.short)
    return GATE_FAILED if arguments.gate and not all(figure.passes for figure in figures) else 0


async def _run(chosen: dict[str, Scenario]) -> list[Figure]:
    """One scenario after the other, each with servers of its own; SIGTERM ends them as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return [figure for name, scenario in chosen.items() for figure in await _measure(name, scenario)]


async def _measure(name: str, scenario: Scenario) -> list[Figure]:
    say(f"{name}: starting")
    with stand(chunk_gap_s=GAP_S, chunks=scenario.chunks) as up:
        async with asyncio.timeout(scenario.limit_s):
            found = await scenario.measure(up)
            return found if isinstance(found, list) else [found]


def _raise_file_limit() -> None:
    """A thousand streams need four thousand files; our children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="under a minute in all; says that it works, not how fast")
    parser.add_argument("--only", type=_names, default=list(FULL), metavar="A,B", help=f"of {', '.join(FULL)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, round by round")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a gate fails")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in FULL]:
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(unknown)}; there are {', '.join(FULL)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
