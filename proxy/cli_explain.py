"""`penstock explain`: where a request for a model would go and why, asked of the running server, else from the file."""

import argparse
import http.client
import ssl
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.core.address import Address
    from penstock.proxy.settings import Settings

FAILED = 1
TIMEOUT_S = 10.0


class NoAnswer(Exception):
    """No server could be asked; the text says why."""


class Refused(Exception):
    """A server answered, and not with an explanation."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model's name as clients send it")
    parser.add_argument("--path", default="/v1/chat/completions", help="default: /v1/chat/completions")
    parser.add_argument("--key-id", metavar="ID", help="whose limits to look at, by the id that penstock keys list has")
    parser.add_argument("--listen", metavar="ADDR", help="host:port of the server, if not the file's")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--config", metavar="FILE", help="default: penstock.toml in this folder, if it is there")


def run(arguments: argparse.Namespace) -> int:
    """The exit code: 0 it would be tried, 1 it would be refused, or nothing could be found out."""
    from penstock.core.config_problem import ConfigError
    from penstock.proxy.settings import load, locate

    try:
        settings = load(locate(arguments.config))
        address = _address(arguments.listen, settings)
    except (ConfigError, ValueError) as error:
        return _complain(str(error))
    wish: dict[str, Any] = {"path": arguments.path, "body": {"model": arguments.model}}
    if arguments.key_id is not None:
        wish["key_id"] = arguments.key_id
    try:
        facts = asked(settings, address, wish)
    except Refused as error:
        return _complain(f"penstock: {error}")
    except NoAnswer as error:
        print(f"penstock: {error}; explained from the file alone, without load, breakers and use", file=sys.stderr)
        from penstock.proxy.offline_explain import explained_from_file

        facts = explained_from_file(settings, wish)
    _show(facts, as_json=arguments.json)
    return FAILED if facts.get("refused") else 0


def asked(settings: "Settings", address: "Address", wish: dict[str, Any]) -> dict[str, Any]:
    """What the running server says. Raises NoAnswer, Refused."""
    import msgspec

    if settings.admin_key is None:
        raise NoAnswer("no server can be asked without an admin key (admin.key)")
    connection = _connection(settings, address)
    headers = {"Content-Type": "application/json", "X-Admin-Key": settings.admin_key.decode("latin-1")}
    try:
        connection.request("POST", "/admin/explain", msgspec.json.encode(wish), headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise NoAnswer(f"no server answers at {address} ({reason})") from None
    finally:
        connection.close()
    try:
        said = msgspec.json.decode(body)
        if status == 200:
            return dict(said)
        raise Refused(f"the server at {address} refused: {said['error']['message']}")
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        raise Refused(f"what answers at {address} is no penstock that explains (it said {status})") from None


def _address(listen: str | None, settings: "Settings") -> "Address":
    """Where to ask. Raises ValueError."""
    from penstock.core.address import Address

    found = settings.config.server.listen if listen is None else Address.parse(listen)
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(anywhere.get(found.host, found.host), found.port)


def _connection(settings: "Settings", address: "Address") -> http.client.HTTPConnection:
    """Raises NoAnswer."""
    tls = settings.config.server.tls
    if not address.port:
        raise NoAnswer("the file's server listens on any free port; --listen says where")
    if tls is None:
        return http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    # It is our own certificate: whoever shows it is the server, by whatever name it was asked for.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(tls.cert_file)
    except OSError as error:
        raise NoAnswer(f"{tls.cert_file} cannot be read ({error.strerror or error})") from None
    return http.client.HTTPSConnection(address.host, address.port, timeout=TIMEOUT_S, context=context)


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import msgspec

        print(msgspec.json.encode(facts).decode())
        return
    from penstock.core.explain_table import explanation_text

    print(explanation_text(facts))


def _complain(words: str) -> int:
    print(words, file=sys.stderr)
    return FAILED
