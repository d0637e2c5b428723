"""Backends whose certificate, name or address is wrong, or changes while we run.

That a good certificate passes, and that one for another host does not, is in test_tls_http2.py; how the addresses of a
name share the time to connect in tests/proxy/test_pool.py.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from bad_backend import BODY, BadBackend, Peer, Scene, Stage, good
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from names import Names
from raw_client import Answer, chat, wait_until

from running import Penstock

LIMIT_S = 0.5
SLACK_S = 1.5
SECRET = "sk-for-this-backend-only"
SERVER = '[server]\nlisten = "127.0.0.1:0"\nworkers = 1\n[store]\nurl = "none"\n'
NO_BREAKER = "[breaker]\nfailures = 1_000_000\nmin_requests = 1_000_000\n"
TIMEOUTS = "{ connect_s = 0.5, send_s = 0.5, first_byte_s = 0.5, idle_s = 0.5, total_s = 5 }"


def section(name: str, url: str, more: str = "", *, connections: int = 1) -> str:
    """A backend with a model of its name."""
    return f"""
[backends.{name}]
kind = "openai"
url = "{url}/v1"
pool = {{ max_connections = {connections} }}
health = {{ interval_s = 0 }}
timeout = {TIMEOUTS}
{more}
[models.{name}]
targets = ["{name}"]
"""


def failed(answer: Answer, status: int, code: str) -> str:
    error = answer.json()["error"]
    assert (answer.status, error["code"], answer.header("x-penstock-error")) == (status, code, "backend"), answer
    return str(error["message"])


# --- certificates ----------------------------------------------------------------------------------------------


class Certificates:
    """Server contexts of every sort; `authority` is the one that the backends' ca_file trusts."""

    def __init__(self, authority: trustme.CA, folder: Path) -> None:
        self._authority = authority
        self._folder = folder

    def issued(self, *names: str, not_before: datetime | None = None, not_after: datetime | None = None):  # type: ignore[no-untyped-def]
        leaf = self._authority.issue_cert(*names, not_before=not_before, not_after=not_after)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        return context

    def self_signed(self) -> ssl.SSLContext:
        """For the right name, at the right time, by nobody."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        file = self._folder / "self-signed.pem"
        pem = serialization.Encoding.PEM
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file.write_bytes(key.private_bytes(pem, *plain) + certificate.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def good(self) -> ssl.SSLContext:
        return self.issued("localhost")

    def expired(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return self.issued("localhost", not_before=now - timedelta(days=30), not_after=now - timedelta(hours=1))

    def not_yet_valid(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return self.issued("localhost", not_before=now + timedelta(days=1), not_after=now + timedelta(days=30))

    def wrong_name(self) -> ssl.SSLContext:
        return self.issued("localhost.example.org", "127.0.0.1")


def speaks_http(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    peer.wait()


def refuses_our_version(peer: Peer) -> None:
    """The alert protocol_version (RFC 8446 §6.2)."""
    peer.socket.recv(65_536)
    peer.send(b"\x15\x03\x01\x00\x02\x02\x46")
    peer.wait()


def hangs_up(peer: Peer) -> None:
    peer.socket.recv(65_536)


BAD_CERTIFICATES = {
    "expired": "certificate has expired",
    "not_yet_valid": "certificate is not yet valid",
    "wrong_name": "Hostname mismatch",
    "self_signed": "self-signed certificate",
}
BAD_HANDSHAKES: dict[str, tuple[Scene, int, str]] = {
    "speaks http": (speaks_http, 502, "backend_unreachable"),
    "another version": (refuses_our_version, 502, "backend_unreachable"),
    "closes": (hangs_up, 502, "backend_unreachable"),
    "resets": (Peer.reset, 502, "backend_unreachable"),
    "falls silent": (Peer.wait, 504, "backend_timeout"),
}
CASES = [*BAD_CERTIFICATES, *BAD_HANDSHAKES]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(authority, tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def before_tls(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Penstock, dict[str, BadBackend]]]:
    """A backend per case, behind TLS."""
    ca_file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    more = f'ca_file = "{ca_file}"\napi_key = "env:BACKEND_KEY"'
    with Stage() as stage:
        backends = {case: stage.backend() for case in CASES}
        sections = [
            section(f"b{n}", f"https://localhost:{each.port}", more) for n, each in enumerate(backends.values())
        ]
        with Penstock(SERVER + "".join(sections), env={"BACKEND_KEY": SECRET}) as process:
            yield process, backends


def renewed(process: Penstock, case: str, backend: BadBackend, certificates: Certificates) -> None:
    """With a good certificate the same backend serves at once; nothing of what was wrong is remembered."""
    assert backend.requests == []  # neither the request nor the credential was shown to whoever that was
    backend.tls, backend.scene = certificates.good(), good
    for _ in range(3):
        answer = chat(process.port, model=f"b{CASES.index(case)}")
        assert (answer.status, answer.body) == (200, BODY)
    assert all(SECRET.encode() in sent for sent in backend.requests)
    wait_until(lambda: len(backend.open) <= 1)


@pytest.mark.parametrize("case", BAD_CERTIFICATES)
def test_a_bad_certificate(
    before_tls: tuple[Penstock, dict[str, BadBackend]], certificates: Certificates, case: str
) -> None:
    process, backends = before_tls
    backends[case].tls = getattr(certificates, case)()
    began = time.monotonic()
    message = failed(chat(process.port, model=f"b{CASES.index(case)}"), 502, "backend_unreachable")
    assert BAD_CERTIFICATES[case] in message
    assert time.monotonic() - began < SLACK_S
    renewed(process, case, backends[case], certificates)


@pytest.mark.parametrize("case", BAD_HANDSHAKES)
def test_a_handshake_that_fails(
    before_tls: tuple[Penstock, dict[str, BadBackend]], certificates: Certificates, case: str
) -> None:
    process, backends = before_tls
    backends[case].scene, status, code = BAD_HANDSHAKES[case]
    began = time.monotonic()
    failed(chat(process.port, model=f"b{CASES.index(case)}"), status, code)
    assert time.monotonic() - began < LIMIT_S + SLACK_S
    renewed(process, case, backends[case], certificates)


# --- names -----------------------------------------------------------------------------------------------------


def who(name: bytes) -> Scene:
    """A backend that says which one it is, until it is told to close behind its answer."""

    def scene(peer: Peer) -> None:
        while True:
            peer.request()
            body = BODY.replace(b"good", name)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            peer.send(head + body)

    return scene


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path)


def test_a_name_whose_address_changes(names: Names) -> None:
    """A connection that is there goes on; the next one is made to where the name points by then."""
    with Stage() as stage:
        first = stage.backend("127.0.0.2")
        second = stage.backend("127.0.0.3", first.port)
        first.scene, second.scene = who(b"first"), who(b"second")
        names.say(moving="127.0.0.2")
        text = SERVER + section("b", f"http://moving.test:{first.port}")
        with Penstock(text, env=names.env) as process:
            assert b"first" in chat(process.port, model="b").body
            names.say(moving="127.0.0.3")
            assert b"first" in chat(process.port, model="b").body
            stage.end(first)
            wait_until(lambda: not first.open)
            for _ in range(3):
                assert b"second" in chat(process.port, model="b").body
            assert (first.connections, second.connections) == (1, 1)


def test_a_name_that_stops_resolving(names: Names) -> None:
    """What is connected goes on; what has to connect is told why it cannot, at once, and only until it can again."""
    with Stage() as stage:
        backend = stage.backend("127.0.0.2")
        names.say(away="127.0.0.2")
        with Penstock(SERVER + section("b", f"http://away.test:{backend.port}"), env=names.env) as process:
            assert chat(process.port, model="b").body == BODY
            names.say()
            assert chat(process.port, model="b").body == BODY
            for sock in tuple(backend.open):
                sock.shutdown(socket.SHUT_RDWR)
            wait_until(lambda: not backend.open)
            began = time.monotonic()
            message = failed(chat(process.port, model="b"), 502, "backend_unreachable")
            assert "'b'" in message and "not known" in message
            assert time.monotonic() - began < SLACK_S
            names.say(away="127.0.0.2")
            assert chat(process.port, model="b").body == BODY


def test_a_resolver_that_hangs_delays_only_its_own_name(names: Names) -> None:
    """Questions are asked on a few threads, which all backends share; many clients of the one that hangs take one."""
    with Stage() as stage:
        backend = stage.backend("127.0.0.2")
        names.say(hanging="-", other="127.0.0.2")
        sections = [
            section("hanging", f"http://hanging.test:{backend.port}", connections=20),
            section("other", f"http://other.test:{backend.port}"),
        ]
        with Penstock(SERVER + NO_BREAKER + "".join(sections), env=names.env) as process:
            answers: list[Answer] = []
            askers = [
                threading.Thread(target=lambda: answers.append(chat(process.port, model="hanging"))) for _ in range(12)
            ]
            began = time.monotonic()
            for asker in askers:
                asker.start()
            assert chat(process.port, model="other").body == BODY
            for asker in askers:
                asker.join()
            assert time.monotonic() - began < LIMIT_S + SLACK_S
            for answer in answers:
                failed(answer, 504, "backend_timeout")
            names.say(hanging="127.0.0.2", other="127.0.0.2")
            wait_until(lambda: chat(process.port, model="hanging").body == BODY)
