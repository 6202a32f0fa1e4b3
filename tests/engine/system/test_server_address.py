"""The address of a server that is not ours."""

import pytest

from paddock.engine.system.server_address import BadAddress, base_url, is_here


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://gpu-1:8000", "http://gpu-1:8000"),
        ("http://gpu-1:8000/v1/", "http://gpu-1:8000"),
        (" HTTPS://Example.org/api/v1", "https://example.org/api"),
        ("http://[::1]:11434/", "http://[::1]:11434"),
    ],
)
def test_an_address_is_written_in_one_way(written: str, meant: str) -> None:
    assert base_url(written) == meant


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("gpu-1:8000", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("http://", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("ftp://x", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("http://a b", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("http://x:0", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("http://x:99999", "is no address of a server. Write it like `http://gpu-1:8000`."),
        ("http://me:pw@x", "has a password in it. Give the key as `pool.key`, from a secret."),
        (
            "http://x/v1?key=1",
            "has more than a server's address in it. Write it like `http://gpu-1:8000`.",
        ),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(written: str, advice: str) -> None:
    with pytest.raises(BadAddress) as caught:
        base_url(written)
    assert str(caught.value) == advice


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://localhost:1", "http://[::1]:2"])
def test_loopback_is_this_machine(url: str) -> None:
    assert is_here(url)


@pytest.mark.parametrize(
    "url",
    ["http://localhost.evil.org", "http://127.0.0.1.nip.io", "http://10.0.0.1", "http://0.0.0.0"],
)
def test_whatever_else_may_be_another_machine(url: str) -> None:
    assert not is_here(url)
