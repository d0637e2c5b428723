"""`penstock demo-backend`: the demo backend as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from penstock.proxy.demo.answer import Refused
from penstock.proxy.demo.options import DemoOptions
from penstock.proxy.demo.server import start

_DEFAULT_LISTEN = "127.0.0.1:9090"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `penstock demo-backend`."""
    add = parser.add_argument
    add("--listen", default=_DEFAULT_LISTEN, metavar="HOST:PORT", help="port 0: any free one [%(default)s]")
    add("--print-port", action="store_true", help="print the port and nothing else")
    add("--tokens", type=int, metavar="N", help="length of an answer [as it happens to be]")
    add(
        "--rate",
        type=float,
        default=30.0,
        metavar="N",
        help="tokens/s of a stream, 0: no limit [%(default)s]",
    )
    add("--first-ms", type=float, default=0.0, metavar="MS", help="delay before an answer [%(default)s]")
    add("--bytes", type=int, metavar="N", help="size of an answer's text or of binary bodies")
    add(
        "--fault",
        default="",
        metavar="NAME",
        help="what goes wrong, as in X-Demo-Fault: status=503, cut;after=5",
    )
    add("--fault-probability", type=float, default=1.0, metavar="P", help="share of requests [%(default)s]")
    add(
        "--idle-close-probability",
        type=float,
        default=0.0,
        metavar="P",
        help="share of answers after which the kept connection turns out to be closed [%(default)s]",
    )
    add("--seed", type=int, metavar="N", help="makes every random choice repeatable")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit status."""
    host, port = _address(args.listen)
    if port is None:
        print(f"--listen: expected HOST:PORT, not {args.listen!r}", file=sys.stderr)
        return 2
    options = DemoOptions(**{name: getattr(args, name) for name in DemoOptions.__struct_fields__})
    try:
        uvloop.run(_serve(host, port, options, only_port=args.print_port))
    except Refused as refused:
        print(f"--fault: {refused.message}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot listen on {args.listen}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _address(listen: str) -> tuple[str, int | None]:
    host, _, port = listen.rpartition(":")
    is_port = port.isascii() and port.isdigit() and int(port) < 65536
    return host.strip("[]") or "127.0.0.1", int(port) if is_port else None


async def _serve(host: str, port: int, options: DemoOptions, *, only_port: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await start(host, port, options)
    print(server.port if only_port else _greeting(host, server.port), flush=True)
    await stopped.wait()
    server.close()


def _greeting(host: str, port: int) -> str:
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    body = '{"stream":true,"messages":[{"role":"user","content":"Hello"}]}'
    return f"demo backend on {base}; try: curl -N {base}/chat/completions -d '{body}'"
