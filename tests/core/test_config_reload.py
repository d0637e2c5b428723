"""What a reload takes up of a new configuration, and what it says about the rest."""

from msgspec.structs import replace

from penstock.core.address import Address
from penstock.core.config import Config, Log, Server, Store, Tls
from penstock.core.config_reload import keep_running

STAYS = "only a restart or `penstock upgrade` changes it"
RUNNING = Config(server=Server(listen=Address("127.0.0.1", 8080), workers=2, state_dir="/var/lib/penstock"))


def test_the_same_says_nothing() -> None:
    assert keep_running(RUNNING, RUNNING) == (RUNNING, ())


def test_what_can_change_does() -> None:
    server = replace(RUNNING.server, drain_s=1, receive_s=2, max_body_bytes=3, hosts=("a",))
    new = replace(RUNNING, server=server, log=Log(level="error"), store=Store(keep_days=1))
    assert keep_running(RUNNING, new) == (new, ())


def test_what_cannot_stays_and_is_said() -> None:
    server = Server(listen=Address("127.0.0.1", 9), workers=4, state_dir="/else", drain_s=7)
    new = replace(RUNNING, server=server, store=Store(spool_records=512))
    kept, notes = keep_running(RUNNING, new)
    assert kept == replace(RUNNING, server=replace(RUNNING.server, drain_s=7))
    assert notes == (
        f"server.listen stays 127.0.0.1:8080: {STAYS}",
        f"server.workers stays 2: {STAYS}",
        f"server.state_dir stays /var/lib/penstock: {STAYS}",
        f"store.spool_records stays 65536: {STAYS}",
    )


def test_tls_is_not_told_as_it_looks_inside() -> None:
    tls = Tls(cert_file="a", key_file="b")
    running = replace(RUNNING, server=replace(RUNNING.server, tls=tls))
    kept, notes = keep_running(running, RUNNING)
    assert kept == running and notes == (f"server.tls stays as it is: {STAYS}",)
    _, notes = keep_running(RUNNING, running)
    assert notes == (f"server.tls stays as it is: {STAYS}",)


def test_under_tls_a_head_keeps_its_time() -> None:
    running = replace(RUNNING, server=replace(RUNNING.server, tls=Tls(cert_file="a", key_file="b")))
    new = replace(running, server=replace(running.server, receive_s=3))
    kept, notes = keep_running(running, new)
    assert kept == new
    assert notes == (f"server.receive_s stays 15 for heads under TLS: {STAYS}",)
