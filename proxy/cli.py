"""The command line. Each verb imports what it needs when it runs, so that help comes at once."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from penstock.core.address import Address
    from penstock.core.config import Config

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class Verb(NamedTuple):
    """One word of the command line."""

    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Exit code 0 = done, 1 = failed, 2 = wrong use."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments)
    try:
        chosen = parser.parse_args(arguments)
        if chosen.verb is None:
            parser.print_help(sys.stderr)
            return WRONG_USE
        code = _verbs()[chosen.verb].run(chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough, as `| head` does
        sys.stdout = None
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _verbs() -> dict[str, Verb]:
    return {
        "serve": Verb("run the proxy", "penstock serve --config penstock.toml", _serve_arguments, _serve),
        "reload": Verb(
            "have a running server read its configuration again", "penstock reload", _config_argument, _reload
        ),
        "upgrade": Verb(
            "have a new process take a running server's place", "penstock upgrade", _config_argument, _upgrade
        ),
        "status": Verb("say how a running server is", "penstock status", _config_argument, _status),
        "check": Verb("check a configuration without starting", "penstock check --live", _check_arguments, _check),
        "init": Verb("write a commented configuration file", "penstock init", _init_arguments, _init),
        "keys": Verb(
            "make, list, rotate and revoke keys", "penstock keys create --name laptop", _keys_arguments, _keys
        ),
        "usage": Verb(
            "what was used, and what it cost", "penstock usage --by model --since 24h", _usage_arguments, _usage
        ),
        "explain": Verb(
            "say where a request would go, and why", "penstock explain llama3.2:1b", _explain_arguments, _explain
        ),
        "demo-backend": Verb(
            "run a backend that needs no model", "penstock demo-backend --rate 5", _demo_arguments, _demo
        ),
        "version": Verb("say which version this is", "penstock version", _no_arguments, _version),
    }


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock",
        allow_abbrev=False,  # a short form of today would be ambiguous tomorrow
        description="An OpenAI- and Ollama-compatible LLM proxy.",
        epilog="example: penstock serve    (without a file: a demo, and what it finds on this machine)",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="say which version this is")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, verb in _verbs().items():
        sub = verbs.add_parser(
            name,
            allow_abbrev=False,
            help=verb.summary,
            description=f"{_capital(verb.summary)}.",
            epilog=f"example: {verb.example}",
        )
        if name in arguments:  # the arguments of a verb may cost an import
            verb.add_arguments(sub)
    return parser


class _ShowVersion(argparse.Action):
    """--version, which looks the version up only when asked."""

    def __call__(self, *_: object, **__: object) -> None:
        _version(argparse.Namespace())
        raise SystemExit(0)


# --- serve ---------------------------------------------------------------------------------------------


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--listen", metavar="ADDR", type=_address, help='host:port, louder than the file\'s "listen"')
    parser.add_argument("--workers", metavar="N", type=_workers, help="processes; 0 = one per core")


def _serve(arguments: argparse.Namespace) -> int:
    from penstock.proxy.serve import serve
    from penstock.proxy.settings import Overrides

    return serve(arguments.config, Overrides(arguments.listen, arguments.workers))


def _address(text: str) -> "Address":
    from penstock.core.address import Address

    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workers(text: str) -> int:
    if not text.isdecimal() or int(text) > 1024:
        raise argparse.ArgumentTypeError("expected a number from 0 to 1024")
    return int(text)


# --- reload, upgrade, status ---------------------------------------------------------------------------


def _reload(arguments: argparse.Namespace) -> int:
    from penstock.proxy.cli_running import have_done

    return have_done("reload", arguments)


def _upgrade(arguments: argparse.Namespace) -> int:
    from penstock.proxy.cli_running import have_done

    return have_done("upgrade", arguments)


def _status(arguments: argparse.Namespace) -> int:
    from penstock.proxy.cli_running import show_status

    return show_status(arguments)


# --- check ---------------------------------------------------------------------------------------------


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument("--live", action="store_true", help="also ask each backend whether it answers")


def _check(arguments: argparse.Namespace) -> int:
    from penstock.core.config_problem import ConfigError
    from penstock.proxy.settings import load, locate

    try:
        settings = load(locate(arguments.config))
    except ConfigError as error:
        return _complain(str(error))
    for line in settings.found:
        print(line)
    print(f"{settings.source or 'no configuration file'}: ok: {_figures(settings.config)}")
    if not arguments.live:
        return 0
    from penstock.proxy.live_check import check_backends

    answers = check_backends(settings)
    for answer in answers:
        print(answer, file=sys.stdout if answer.ok else sys.stderr)
    return 0 if all(answer.ok for answer in answers) else FAILED


def _figures(config: "Config") -> str:
    backends, models = _count(len(config.backends), "backend"), _count(len(config.models), "model")
    return f"{backends}, {models}, listens on {config.server.listen}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# --- init ----------------------------------------------------------------------------------------------


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="penstock.toml", metavar="FILE", help="default: penstock.toml")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def _init(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from penstock.proxy.settings import example_text

    try:
        with Path(arguments.file).open("w" if arguments.force else "x", encoding="utf-8") as file:
            file.write(example_text())
    except FileExistsError:
        return _complain(f"penstock: {arguments.file} is there already; --force writes over it")
    except OSError as error:
        return _complain(f"penstock: cannot write {arguments.file}: {error.strerror}")
    print(f"{arguments.file}: written; next: penstock check --config {arguments.file}")
    return 0


# --- keys, usage, explain ------------------------------------------------------------------------------


def _keys_arguments(parser: argparse.ArgumentParser) -> None:
    from penstock.proxy.cli_keys import add_arguments

    add_arguments(parser)


def _keys(arguments: argparse.Namespace) -> int:
    from penstock.proxy.cli_keys import run

    return run(arguments)


def _usage_arguments(parser: argparse.ArgumentParser) -> None:
    from penstock.proxy.cli_usage import add_arguments

    add_arguments(parser)


def _usage(arguments: argparse.Namespace) -> int:
    from penstock.proxy.cli_usage import run

    return run(arguments)


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    from penstock.proxy.cli_explain import add_arguments

    add_arguments(parser)


def _explain(arguments: argparse.Namespace) -> int:
    from penstock.proxy.cli_explain import run

    return run(arguments)


# --- demo-backend, version -----------------------------------------------------------------------------


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    from penstock.proxy.demo import add_arguments

    add_arguments(parser)


def _demo(arguments: argparse.Namespace) -> int:
    from penstock.proxy.demo import run

    return run(arguments)


def _no_arguments(_: argparse.ArgumentParser) -> None:
    pass


def _version(_: argparse.Namespace) -> int:
    from importlib.metadata import version

    print(f"penstock {version('penstock')}")
    return 0


# --- all -----------------------------------------------------------------------------------------------


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="default: penstock.toml in this folder, if it is there")


def _complain(words: str) -> int:
    print(words, file=sys.stderr)
    return FAILED


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
