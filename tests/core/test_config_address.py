"""Addresses, host names, origins, references: what is taken, what it becomes, what is refused."""

import pytest

from penstock.core.address import Address, HostName, Origin, Url
from penstock.core.nearest import near_names, nearest
from penstock.core.ollama_host import ollama_url
from penstock.core.secret import Secret


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:8080", "::1", 8080, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("LLM.example.org:443", "llm.example.org", 443, False),
        ("localhost.example.org:443", "localhost.example.org", 443, False),
    ],
)
def test_listen(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "[::1]", "[x]:80",
     "999.1.1.1:80", "a b:80", "http://x:80", "[fe80::1%eth0]:80", "host:٣"],
)  # fmt: skip
def test_listen_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1", "api.openai.com"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1", "api.openai.com"),
        ("HTTP://Host:80//", "http://host", "host"),
        ("https://host:80", "https://host:80", "host:80"),
        ("http://[::1]:11434/", "http://[::1]:11434", "[::1]:11434"),
        ("http://vllm_1:8000/v1", "http://vllm_1:8000/v1", "vllm_1:8000"),
    ],
)
def test_url(text: str, url: str, authority: str) -> None:
    assert str(Url.parse(text)) == url
    assert Url.parse(text).authority == authority
    assert Url.parse(url) == Url.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:80", "ftp://host", "http://", "http:///v1", "http://u@host", "http://u:p@host", "http://h?x",
     "http://h#x", "http://h:x", "http://h:65536", "http://a b", "http://h\n", "http://[::1", "http://h%20x",
     "http://ü"],
)  # fmt: skip
def test_url_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|host"):
        Url.parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [("LLM.example.org.", "llm.example.org"), ("10.0.0.1", "10.0.0.1"), ("[::1]", "::1"), ("::0:1", "::1")],
)
def test_host_name(text: str, name: str) -> None:
    assert HostName.parse(text) == name


@pytest.mark.parametrize("text", ["", "*", "a:80", "http://a", "a/b", "a b", ".", "-a", "[a]"])
def test_host_name_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a host name alone"):
        HostName.parse(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("*", "*"),
        ("https://App.example:443", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_origin(text: str, origin: str) -> None:
    assert Origin.parse(text) == origin


@pytest.mark.parametrize("text", ["", "null", "a.example", "https://a/", "https://a?x", "https://u@a", "https://*"])
def test_origin_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an origin such as"):
        Origin.parse(text)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        (":1234", "http://127.0.0.1:1234"),
        (" 'gpu:99999' ", "http://gpu:11434"),
        ("gpu", "http://gpu:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("http://gpu", "http://gpu"),
        ("http://gpu/", "http://gpu"),
        ("https://gpu", "https://gpu"),
        ("https://gpu:1234/ollama", "https://gpu:1234/ollama"),
    ],
)
def test_ollama_host(value: str, url: str) -> None:
    assert str(ollama_url(value)) == url


def test_secret_is_a_reference() -> None:
    assert str(Secret.parse("env:OPENAI_API_KEY")) == "env:OPENAI_API_KEY"
    assert Secret.parse("file:keys/openai") == Secret("file", "keys/openai")
    assert not Secret.parse("")


@pytest.mark.parametrize("text", ["sk-hush", "hush:x", "env:", "env:hush-1", "ENV:hush", "file:", "aws-sm:hush#x"])
def test_secret_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"env:|file:") as caught:
        Secret.parse(text)
    assert "hush" not in str(caught.value)


def test_near_names() -> None:
    models = ["gpt-4o", "gpt-4o-mini", "llama3.2:1b"]
    assert nearest("GPT-4", models) == "gpt-4o"
    assert nearest("mistral", models) is None
    assert nearest("x" * 1_000_000, models) is None
    assert near_names("gpt-4o-min", models) == ["gpt-4o-mini", "gpt-4o"]
