"""TLS on the way in (HTTP/1.1, HTTP/2, client certificates) and on the way out (authorities and names are verified)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import h2.connection
import h2.errors
import h2.events
import httpx
import pytest
from raw_client import JSON_TYPE, RawClient, chat, chat_body, request, sse_data, wait_until

from running import Demo, Penstock, config

CHAT = "/v1/chat/completions"


def tls_table(certificates: Path, more: str = "") -> str:
    return f'[server.tls]\ncert_file = "{certificates}/server.pem"\nkey_file = "{certificates}/server.key"\n{more}\n'


def trusting(certificates: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates / "ca.pem"))


@pytest.fixture(scope="module")
def secure(demo: Demo, certificates: Path) -> Iterator[Penstock]:
    timeout = "[backends.demo.timeout]\nfirst_byte_s = 2\nidle_s = 0.4\n"
    with Penstock(config(demo.port, server="receive_s = 0.5", more=tls_table(certificates) + timeout)) as process:
        yield process


@pytest.fixture(scope="module", params=[False, True], ids=["HTTP/1.1", "HTTP/2"])
def client(secure: Penstock, certificates: Path, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=secure.url, verify=trusting(certificates), http2=request.param, timeout=5) as client:
        client.headers["x-expected"] = "HTTP/2" if request.param else "HTTP/1.1"
        yield client


def ask(number: int = 1, **fields: Any) -> dict[str, Any]:
    talk = [{"role": "user", "content": f"Please repeat the number {number} to me in words"}]
    return {"model": "demo", "messages": talk, **fields}


# --- both versions ------------------------------------------------------------------------------------------


def test_chat(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask(7))
    assert (answer.status_code, answer.http_version) == (200, client.headers["x-expected"])
    assert " 7 " in answer.json()["choices"][0]["message"]["content"]


def test_a_stream(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=ask(stream=True)) as answer:
        assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"


def test_errors(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={"model": "none"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert client.post(CHAT, content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.get(CHAT).status_code == 405


def test_our_own_answers_ask_for_https_from_now_on(client: httpx.Client) -> None:
    assert "max-age=" in client.get("/v1/models").headers["strict-transport-security"]


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
def test_an_upload(client: httpx.Client, known: bool) -> None:
    parts = [bytes([number]) * 20_000 for number in range(100)]
    headers = {"content-type": "audio/wav"} | ({"content-length": str(2_000_000)} if known else {})
    seen = client.post("/v1/echo", content=iter(parts), headers=headers).json()
    assert seen["body_sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()


def test_json_of_unknown_length(client: httpx.Client) -> None:
    body = chat_body()
    parts = [body[at : at + 9] for at in range(0, len(body), 9)]
    assert client.post(CHAT, content=iter(parts), headers={"content-type": "application/json"}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS"])
def test_methods_without_a_body(client: httpx.Client, method: str) -> None:
    seen = client.request(method, "/v1/echo?a=%20").json()
    assert (seen["method"], seen["target"], seen["body"]) == (method, "/v1/echo?a=%20", "")


def test_head(client: httpx.Client) -> None:
    assert client.head("/v1/models").status_code == 200
    assert client.head("/v1/files").status_code == 200


def test_headers(client: httpx.Client, demo: Demo) -> None:
    headers = [("x-b", "1"), ("x-b", "2"), ("authorization", "Bearer sk-client"), ("cookie", "a=b"), ("cookie", "c=d")]
    seen = client.get("/v1/echo", headers=headers).json()["headers"]
    assert [value for name, value in seen if name.lower() == "x-b"] == ["1", "2"]
    assert [value for name, value in seen if name.lower() == "host"] == [f"127.0.0.1:{demo.port}"]
    assert "sk-client" not in json.dumps(seen) and not [name for name, _ in seen if name.startswith(":")]


def test_a_large_answer(client: httpx.Client) -> None:
    headers = {"X-Demo-Bytes": "5000000"}
    answer = client.post("/v1/audio/speech", json={"model": "demo", "input": "x"}, headers=headers)
    assert len(answer.content) == 5_000_000


@pytest.mark.parametrize("fault", ["cut", "noend", "stall"])
def test_a_stream_that_breaks_off(client: httpx.Client, fault: str) -> None:
    """HTTP/2 shares its connection, so there the last event and the missing end mark tell."""
    body = b""
    with (
        contextlib.suppress(httpx.RemoteProtocolError),
        client.stream("POST", CHAT, json=ask(stream=True), headers={"X-Demo-Fault": fault}) as answer,
    ):
        for part in answer.iter_raw():
            body += part
    assert json.loads(sse_data(body)[-1])["error"]["type"] == "server_error" and b"[DONE]" not in body
    assert client.get("/health/live").status_code == 200


def test_a_foreign_host_is_refused(client: httpx.Client) -> None:
    answer = client.get("/health/live", headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Host")


# --- HTTP/2 --------------------------------------------------------------------------------------------------


def test_a_hundred_streams_on_one_connection(secure: Penstock, certificates: Path) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> tuple[bool, int]:
        async with client.stream("POST", CHAT, json=ask(number, stream=bool(number % 2))) as answer:
            text = (await answer.aread()).decode()
            local = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
            return str(number) in text, local

    async def main() -> list[tuple[bool, int]]:
        verify = trusting(certificates)
        async with httpx.AsyncClient(base_url=secure.url, verify=verify, http2=True, timeout=20) as client:
            await client.get("/health/live")
            return await asyncio.gather(*(one(client, 1000 + number) for number in range(100)))

    results = asyncio.run(main())
    assert all(right for right, _ in results) and len({port for _, port in results}) == 1


class Http2:
    """One HTTP/2 connection by hand: httpx drops a stream it has lost interest in without telling the server."""

    def __init__(self, port: int, certificates: Path) -> None:
        context = trusting(certificates)
        context.set_alpn_protocols(["h2"])
        self._socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        self._socket.settimeout(5)
        self._protocol = h2.connection.H2Connection()
        self._protocol.initiate_connection()
        self.seen: list[h2.events.Event] = []
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(self, body: bytes, *lines: tuple[str, str]) -> int:
        """Send a chat request; its stream's number."""
        number = self._protocol.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", CHAT)]
        self._protocol.send_headers(number, [*head, ("content-type", "application/json"), *lines])
        self._protocol.send_data(number, body, end_stream=True)
        self._flush()
        return number

    def cancel(self, number: int) -> None:
        self._protocol.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def until(self, kind: type[h2.events.Event], number: int) -> None:
        """Read until an event of this kind has come on this stream."""
        while not any(isinstance(event, kind) and event.stream_id == number for event in self.seen):
            data = self._socket.recv(65_536)
            assert data, "closed"
            events = self._protocol.receive_data(data)
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    self._protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.seen += events
            self._flush()

    def body(self, number: int) -> bytes:
        self.until(h2.events.StreamEnded, number)
        return b"".join(e.data for e in self.seen if isinstance(e, h2.events.DataReceived) and e.stream_id == number)

    def _flush(self) -> None:
        self._socket.sendall(self._protocol.data_to_send())


LONG = (("x-demo-tokens", "100000"), ("x-demo-rate", "500"))
LEFT = {"while waiting": (("x-demo-fault", "never"),), "in the stream": LONG}


@pytest.mark.parametrize("how", ["stream reset", "connection closed"])
@pytest.mark.parametrize("lines", LEFT.values(), ids=LEFT)
def test_leaving_frees_the_backend(
    secure: Penstock, certificates: Path, demo: Demo, lines: tuple[tuple[str, str], ...], how: str
) -> None:
    wait_until(lambda: demo.stats()["requests_active"] == 0)
    with Http2(secure.port, certificates) as client:
        number = client.ask(chat_body(stream=True), *lines)
        wait_until(lambda: demo.stats()["requests_active"] == 1)
        if how == "stream reset":
            client.cancel(number)
            wait_until(lambda: demo.stats()["requests_active"] == 0, 0.5)
    wait_until(lambda: demo.stats()["requests_active"] == 0, 0.5)


def test_one_cancelled_stream_leaves_its_neighbours_alone(secure: Penstock, certificates: Path, demo: Demo) -> None:
    with Http2(secure.port, certificates) as client:
        neighbour = client.ask(chat_body(stream=True), ("x-demo-tokens", "40"), ("x-demo-rate", "200"))
        leaver = client.ask(chat_body(stream=True), *LONG)
        client.until(h2.events.DataReceived, leaver)
        client.cancel(leaver)
        assert sse_data(client.body(neighbour))[-1] == "[DONE]"
    wait_until(lambda: demo.stats()["requests_active"] == 0)


# --- the handshake ---------------------------------------------------------------------------------------------


def test_a_client_that_does_not_know_our_authority_is_told(secure: Penstock) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{secure.url}/health/live")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_old_versions_of_tls_are_refused(secure: Penstock, certificates: Path) -> None:
    context = trusting(certificates)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        RawClient(secure.port, tls=context)


def test_plain_http_on_the_tls_port_harms_nobody(secure: Penstock, client: httpx.Client) -> None:
    with RawClient(secure.port) as plain:
        assert not plain.send(request("GET", "/health/live")).rest().startswith(b"HTTP/1.1 200")
    assert client.get("/health/live").status_code == 200


def test_a_client_that_falls_silent_in_the_handshake(secure: Penstock) -> None:
    with RawClient(secure.port, timeout_s=1.5) as client:
        assert client.send(b"\x16\x03\x01").ended()


def test_a_cut_over_tls_is_no_clean_end(secure: Penstock, certificates: Path) -> None:
    with RawClient(secure.port, tls=trusting(certificates)) as client:
        client.send(request("POST", CHAT, chat_body(stream=True), JSON_TYPE, "X-Demo-Fault: cut"))
        answer = client.answer()
    assert not answer.clean and "error" in json.loads(answer.data[-1])


@pytest.fixture(scope="module")
def mutual(demo: Demo, certificates: Path) -> Iterator[Penstock]:
    more = tls_table(certificates, f'client_ca_file = "{certificates}/ca.pem"')
    with Penstock(config(demo.port, more=more)) as process:
        yield process


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_a_client_certificate_opens(mutual: Penstock, certificates: Path, http2: bool) -> None:
    context = trusting(certificates)
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    with httpx.Client(verify=context, http2=http2) as client:
        assert client.post(mutual.url + CHAT, json=ask()).status_code == 200


def test_no_client_certificate_is_refused(mutual: Penstock, certificates: Path) -> None:
    with pytest.raises(httpx.TransportError), httpx.Client(verify=trusting(certificates)) as client:
        client.get(f"{mutual.url}/health/live")


def test_a_strangers_client_certificate_is_refused(mutual: Penstock, certificates: Path, tmp_path: Path) -> None:
    import trustme

    stranger = trustme.CA().issue_cert("client@example.org")
    stranger.private_key_and_cert_chain_pem.write_to_path(tmp_path / "stranger.pem")
    context = trusting(certificates)
    context.load_cert_chain(tmp_path / "stranger.pem")
    with pytest.raises(httpx.TransportError), httpx.Client(verify=context) as client:
        client.get(f"{mutual.url}/health/live")


# --- a backend behind TLS ------------------------------------------------------------------------------------------


class TlsFront:
    """Ends TLS for the demo on two loopback addresses; the certificate is good for the first."""

    def __init__(self, demo_port: int, certificates: Path) -> None:
        self._demo_port = demo_port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> int:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(5)

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        first = socket.create_server(("127.0.0.1", 0))
        port = int(first.getsockname()[1])
        second = socket.create_server(("127.0.0.2", port))
        self._servers = [
            await asyncio.start_server(self._serve, sock=listener, ssl=self._context) for listener in (first, second)
        ]
        return port

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        behind, ahead = await asyncio.open_connection("127.0.0.1", self._demo_port)
        try:
            await asyncio.wait(
                [self._loop.create_task(copy(reader, ahead)), self._loop.create_task(copy(behind, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for end in (ahead, writer):
                end.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@pytest.fixture(scope="module")
def tls_demo(demo: Demo, certificates: Path) -> Iterator[int]:
    with TlsFront(demo.port, certificates) as port:
        yield port


@pytest.fixture(scope="module")
def before_tls(tls_demo: int, certificates: Path) -> Iterator[Penstock]:
    def backend(name: str, host: str, ca: bool) -> str:
        line = f'ca_file = "{certificates}/ca.pem"' if ca else ""
        target = f'[models.{name}]\ntargets = [{{ backend = "{name}", model = "demo" }}]'
        return f'[backends.{name}]\nkind = "openai"\nurl = "https://{host}:{tls_demo}/v1"\n{line}\n{target}\n'

    more = backend("good", "localhost", True) + backend("stranger", "127.0.0.1", False)
    more += backend("misnamed", "127.0.0.2", True)
    with Penstock(config(tls_demo, more=more)) as process:
        yield process


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_backend_over_https(before_tls: Penstock, stream: bool) -> None:
    for _ in range(3):
        answer = chat(before_tls.port, model="good", stream=stream)
        assert answer.status == 200 and answer.clean


@pytest.mark.parametrize("model", ["stranger", "misnamed"])
def test_a_backend_that_cannot_prove_its_name(before_tls: Penstock, model: str) -> None:
    answer = chat(before_tls.port, model=model)
    assert (answer.status, answer.json()["error"]["code"]) == (502, "backend_unreachable")
    assert "ertificate" in answer.json()["error"]["message"]


def test_plain_http_to_a_tls_backend(before_tls: Penstock) -> None:
    assert chat(before_tls.port).status in (404, 502)


@pytest.mark.parametrize("fault", ["cut", "rst"])
def test_a_cut_over_tls_is_an_error(before_tls: Penstock, fault: str) -> None:
    answer = chat(before_tls.port, f"X-Demo-Fault: {fault}", model="good", stream=True)
    assert not answer.clean and "error" in json.loads(answer.data[-1])
