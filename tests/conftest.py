"""Parts of a machine that some tests need, and what happens where one is missing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

JS = Path(__file__).parent / "e2e" / "js"

# name -> (is it here?, how to get it)
PARTS = {
    "node": (
        shutil.which("node") is not None and (JS / "node_modules" / "openai").is_dir(),
        "install Node.js 20 or later, then: npm ci --prefix tests/e2e/js",
    ),
    "nginx": (shutil.which("nginx") is not None, "apt-get install nginx-light"),
}

left_out = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out tests that need a part this machine lacks, and say which",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(part): the test needs node or nginx on this machine")
    config.stash[left_out] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    missing = {item: part for item in items if (part := missing_part(item)) is not None}
    for part in missing.values():
        config.stash[left_out][part] = config.stash[left_out].get(part, 0) + 1
    config.hook.pytest_deselected(items=list(missing))
    items[:] = [item for item in items if item not in missing]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (part := missing_part(item)) is not None:
        pytest.fail(f"this test needs {part}: {PARTS[part][1]}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for part, count in config.stash[left_out].items():
        terminalreporter.write_line(f"left out: {count} tests that need {part} ({PARTS[part][1]})")


def missing_part(item: pytest.Item) -> str | None:
    for marker in item.iter_markers("needs"):
        if not PARTS[marker.args[0]][0]:
            return str(marker.args[0])
    return None


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ca.pem, server.pem, server.key (localhost, 127.0.0.1), client.pem, client.key."""
    import trustme

    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("client@example.org")
    for name, issued in (("server", server), ("client", client)):
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        for part in issued.cert_chain_pems:
            part.write_to_path(folder / f"{name}.pem", append=True)
    yield folder
