"""Downloads by https alone, from servers that are made up."""

from __future__ import annotations

import email.message
import io
import urllib.request
import urllib.response
from functools import partial

import pytest

from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.launcher.downloads import check_https, check_public, download, is_https

ADDRESSES = {"a.example": ["93.184.216.34"], "inside.example": ["10.0.0.1"],
             "both.example": ["93.184.216.34", "127.0.0.1"], "none.example": []}


def resolve(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    if host not in ADDRESSES:
        raise OSError("Name or service not known")
    return [(0, 0, 0, "", (address, port)) for address in ADDRESSES[host]]


class Servers(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Answers with what ``pages`` has: bytes, or the address of a redirect."""

    def __init__(self, pages: dict[str, bytes | str]) -> None:
        super().__init__()
        self.pages = pages
        self.asked: list[str] = []

    def https_open(self, req):
        self.asked.append(req.full_url)
        page, headers = self.pages[req.full_url], email.message.Message()
        if isinstance(page, str):
            headers["Location"] = page
        answer = urllib.response.addinfourl(io.BytesIO(page if isinstance(page, bytes) else b""), headers, req.full_url,
                                            302 if isinstance(page, str) else 200)
        answer.msg = ""
        return answer

    http_open = https_open


def test_a_redirect_within_https_is_followed():
    servers = Servers({"https://a.example/x": "/y", "https://a.example/y": "https://b.example/z",
                       "https://b.example/z": b"there"})
    assert download("https://a.example/x", 10, handlers=[servers]) == b"there" and len(servers.asked) == 3


@pytest.mark.parametrize("target", ["http://127.0.0.1/secret", "http://a.example/x", "ftp://a.example/x"])
def test_a_redirect_to_anything_else_is_not(target):
    servers = Servers({"https://a.example/x": target, target: b"secret"})
    with pytest.raises(Forbidden, match="is no address of https"):
        download("https://a.example/x", 10, handlers=[servers])
    assert servers.asked == ["https://a.example/x"]


def test_what_is_checked_is_every_address_on_the_way():
    servers = Servers({"https://a.example/x": "https://inside.example/", "https://inside.example/": b"secret"})
    check = partial(check_public, resolve=resolve)
    with pytest.raises(Forbidden, match="inside.example is in a local network"):
        download("https://a.example/x", 10, check, [servers])
    assert servers.asked == ["https://a.example/x"]
    assert download("https://a.example/x", 10, handlers=[servers]) == b"secret"


@pytest.mark.parametrize(("address", "error"), [
    ("https://a.example/x", None), ("HTTPS://a.example:8443/x", None), ("http://a.example/x", Forbidden),
    ("https://inside.example/x", Forbidden), ("https://both.example/x", Forbidden),
    ("https://none.example/", Forbidden),
    ("https://unknown.example/", NotFound), ("https://[::1/", NotFound), ("https://a.example:x/", NotFound),
])
def test_addresses_of_the_internet_alone_are_public(address, error):
    if error is None:
        check_public(address, resolve)
    else:
        with pytest.raises(error):
            check_public(address, resolve)


def test_this_machine_is_not_public():
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433"):
        with pytest.raises(Forbidden, match="local network"):
            check_public(f"https://{host}/x.zip")


def test_too_much_is_refused():
    servers = Servers({"https://a.example/x": b"12345"})
    assert download("https://a.example/x", 5, handlers=[servers]) == b"12345"
    with pytest.raises(InvalidRequest, match="more than 4 bytes"):
        download("https://a.example/x", 4, handlers=[servers])


@pytest.mark.parametrize("address", ["https://127.0.0.1:9/x", "https://a b/x", "https:///x", "https://[/x",
                                     "https://127.0.0.1:x/", "https://127.0.0.1:9/\u00e4"])
def test_what_cannot_be_had_says_so(address):
    with pytest.raises(NotFound, match="cannot be read"):
        download(address, 10)


def test_https_in_any_case():
    assert is_https("HTTPS://x") and not is_https("http://x") and not is_https("x")
    with pytest.raises(Forbidden):
        check_https("http://x")
