"""A host is read as Ollama reads it (its envconfig/config_test.go), but a bad port is an error."""

import pytest

from paddock.runner.config.service_address import ServiceAddress, service_address
from paddock.runner.config.setting_values import BadValue


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1.2.3.4", ServiceAddress("1.2.3.4", 11434)),
        (":1234", ServiceAddress("0.0.0.0", 1234)),
        ("1.2.3.4:1234", ServiceAddress("1.2.3.4", 1234)),
        ("http://1.2.3.4", ServiceAddress("1.2.3.4", 80)),
        ("https://1.2.3.4", ServiceAddress("1.2.3.4", 443, "https")),
        ("https://1.2.3.4:1234", ServiceAddress("1.2.3.4", 1234, "https")),
        ("https://example.com:1234/path/", ServiceAddress("example.com", 1234, "https", "/path")),
        ("example.com", ServiceAddress("example.com", 11434)),
        ("::1", ServiceAddress("::1", 11434)),
        ("[::1]", ServiceAddress("::1", 11434)),
        ("[::1]:1234", ServiceAddress("::1", 1234)),
        ("0.0.0.0:0", ServiceAddress("0.0.0.0", 0)),
        (" 127.0.0.1 ", ServiceAddress("127.0.0.1", 11434)),
        ("HTTP://localhost:8080", ServiceAddress("localhost", 8080)),
    ],
)
def test_a_host_is_read_as_ollama_reads_it(written: str, expected: ServiceAddress) -> None:
    assert service_address(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "x:y",
        ":-1",
        ":65536",
        "a:1:2",
        "[::1",
        "[x]:1",
        "ftp://a",
        "a b",
        "u@h",
        "h?q",
        "://",
    ],
)
def test_what_is_no_host_is_an_error_and_no_default(written: str) -> None:
    with pytest.raises(BadValue):
        service_address(written)
