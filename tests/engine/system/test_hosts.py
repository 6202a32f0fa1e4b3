"""Hosts, patterns and addresses: one canonical form, and nothing that two readers read twice."""

import ipaddress
from ipaddress import ip_address

import pytest

from paddock.engine.system.hosts import (
    BadHost,
    Host,
    is_public,
    is_reachable,
    read_authority,
    read_host,
    read_pattern,
    written_authority,
)
from paddock.engine.system.server_address import PoolAddress, ServerAddress
from tests.optional import present


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("EXAMPLE.org.", "example.org"),
        ("my_db", "my_db"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("ⓛocalhost", "localhost"),
        ("127.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[0:0::1]", "::1"),
    ],
)
def test_a_host_has_one_form_however_it_is_written(text: str, name: str) -> None:
    assert read_host(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "-a.example", "a b", "a/b", "a@b", "a#b", "a%2eb", "1.2.3.4.5",
        "1.2.3.999",
        "fe80::1%eth0", "[::1", "::1]", "[::1]x", "a" * 64, "a." * 130, "a\n", "*", "x:y",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(BadHost):
        read_host(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "127.0.0.0/0",
            "'127.0.0.0/0' begins within a network, which is written '0.0.0.0/0'",
        ),
        (
            "{% if false %}@localhost/{% endif %}192.0.2.2",
            "'{% if false %}@localhost/{% endif %}192.0.2.2' is an expression, "
            "and hosts are written as they are",
        ),
        ("@localhost/", "'@localhost/' is no network such as 10.0.0.0/8"),
        ("localhost:99999", "'localhost:99999' has no port from 1 to 65535"),
        ("*.10.0.0.1", "'*.10.0.0.1' has `*.` before an address"),
        ("*", "'*' is no name of a host"),
    ],
)  # fmt: skip
def test_a_pattern_that_could_be_read_in_two_ways_is_refused(text: str, error: str) -> None:
    with pytest.raises(BadHost) as caught:
        read_pattern(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("host", "patterns", "expected"),
    [
        ("example.org", ["example.org"], True),
        ("EXAMPLE.org", ["Example.org."], True),
        ("a.example.org", ["example.org"], False),
        ("a.b.example.org", ["*.example.org"], True),
        ("example.org", ["*.example.org"], False),
        ("evilexample.org", ["*.example.org"], False),
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["*.3"], False),
        ("::1", ["::1"], True),
        ("127.0.0.1", ["2130706433"], True),
        ("example.org", ["example.org:443"], True),
        ("example.org", ["example.org:80"], False),
    ],
)
def test_hosts_are_named_exactly(host: str, patterns: list[str], *, expected: bool) -> None:
    def names(pattern: str) -> bool:
        try:
            return read_pattern(pattern).names(read_host(host), 443)
        except BadHost:
            return False

    assert any(map(names, patterns)) is expected


@pytest.mark.parametrize(
    ("pattern", "is_loopback"),
    [
        ("localhost", True), ("127.0.0.1:5432", True), ("127.0.0.0/8", True), ("::1", True),
        ("*.localhost", False), ("126.0.0.0/7", False), ("0.0.0.0/0", False), ("0.0.0.0", False),
        ("127.evil.example", False), ("::/0", False),
    ],
)  # fmt: skip
def test_only_what_is_always_this_machine_counts_as_it(pattern: str, *, is_loopback: bool) -> None:
    assert read_pattern(pattern).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("address", "host", "named", "expected"),
    [
        ("93.184.216.34", "example.org", "example.org", True),
        ("127.0.0.1", "localhost", "localhost", True),
        ("127.0.0.1", "example.org", "example.org", False),
        ("169.254.169.254", "example.org", "example.org", False),
        ("192.168.1.1", "example.org", "example.org", False),
        ("::ffff:127.0.0.1", "example.org", "example.org", False),
        ("fe80::1", "example.org", "example.org", False),
        ("fd00::1", "example.org", "example.org", False),
        ("0.0.0.0", "example.org", "example.org", False),
        ("224.0.0.1", "example.org", "example.org", False),
        # A wide network names no private range within it.
        ("169.254.169.254", "example.org", "0.0.0.0/0", False),
        ("127.0.0.1", "127.0.0.1", "0.0.0.0/0", False),
        ("10.0.0.1", "10.0.0.1", "8.0.0.0/6", False),
        ("::1", "::1", "::/0", False),
        ("10.0.0.1", "10.0.0.1", "10.0.0.0/8", True),
        ("169.254.169.254", "169.254.169.254", "169.254.169.254", True),
    ],
)
def test_addresses_of_private_networks_must_be_named_themselves(
    address: str, host: str, named: str, *, expected: bool
) -> None:
    found = is_reachable(ipaddress.ip_address(address), [read_pattern(named)], read_host(host))
    assert found is expected


@pytest.mark.parametrize(
    ("url", "name", "port"),
    [
        ("http://127.0.0.1:5432/x", "127.0.0.1", 5432),
        ("HTTPS://Example.org", "example.org", 443),
        ("http://localhost:80@evil.example/", "evil.example", 80),
        ("http://evil.example#@localhost/", "evil.example", 80),
        ("http://[::1]:9/", "::1", 9),
    ],
)
def test_an_address_leads_where_it_says(url: str, name: str, port: int) -> None:
    found = read_authority(url)
    assert (found.host.name, found.port) == (name, port)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/", "http:///x", "x", "http://a\\b/", "http://a b/", "http://[::1]evil/", "http://x:0/",
        "http://x:65536/", "http://a@b@c/", "http://[::1/", "http://a%2eb/", "http://x\ty/",
    ],
)  # fmt: skip
def test_an_address_that_can_be_read_twice_is_none(url: str) -> None:
    with pytest.raises(BadHost):
        read_authority(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://{{ inputs.host }}/",
        "http://localhost{% if false %}x{% endif %}/",
        "http://localhost{# / #}.evil.example/",
        "{{ inputs.url }}",
        "http:{{ '//evil.example' }}//localhost/",
        "http://localhost:{{ inputs.port }}/",
    ],
)
def test_an_expression_before_the_path_may_lead_anywhere(url: str) -> None:
    assert written_authority(url) is None


def test_an_expression_within_the_path_leads_nowhere_else() -> None:
    found = present(written_authority("http://localhost:9/{{ '@evil.example/' }}"))
    assert (found.host, found.port) == (Host("localhost"), 9)


def test_an_address_shows_no_key() -> None:
    addresses = [ServerAddress("http://gpu-1", "sesame"), PoolAddress("http://gpu-1", "sesame")]
    assert [address.key for address in addresses] == ["sesame", "sesame"]
    assert "sesame" not in repr(addresses)


def test_an_address_that_a_gateway_translates_is_as_public_as_what_it_leads_to() -> None:
    inside = (
        "64:ff9b::a00:7", "64:ff9b::7f00:1", "64:ff9b:1::a00:7", "2002:a00:7::1", "2002:7f00:1::",
        "::7f00:1", "::ffff:0:a9fe:a9fe", "fec0::1", "::1", "::ffff:10.0.0.7",
    )  # fmt: skip
    outside = ("64:ff9b::808:808", "2002:808:808::1", "2606:4700::1", "8.8.8.8", "::ffff:8.8.8.8")
    assert not [one for one in inside if is_public(ip_address(one))]
    assert all(is_public(ip_address(one)) for one in outside)
    wide, own = read_pattern("::/0"), read_pattern("64:ff9b::a00:7")
    host, led = read_host("example.org"), ip_address("64:ff9b::a00:7")
    assert not is_reachable(led, [wide], host) and is_reachable(led, [own], host)
