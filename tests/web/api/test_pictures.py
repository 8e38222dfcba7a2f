import base64
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.core.settings import Settings
from modules.web.api.pictures import Fetcher, decoded, encoded


def test_a_file_becomes_base64_and_a_lost_one_an_error(tmp_path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG")
    assert base64.b64decode(encoded(str(path))) == b"\x89PNG"
    with pytest.raises(NotFound):
        encoded(str(tmp_path / "gone.png"))


@pytest.mark.parametrize("text", ["aGVsbG8=", "aGVsbG8", " aGVs\nbG8= ", "data:image/png;base64,aGVsbG8=",
                                  "DATA:;base64,aGVsbG8"])
def test_base64_comes_in_many_coats(text: str) -> None:
    assert decoded(text, Settings()) == b"hello"


@pytest.mark.parametrize("text", ["", " ", "data:image/png", "data:,", "a", "ä", "aGVsbG8=!", "../../etc/passwd",
                                  "ftp://x/y"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decoded(text, Settings())


def test_settings_forbid_addresses() -> None:
    with pytest.raises(Forbidden, match="not fetched"):
        decoded("https://a.example/x.png", replace(Settings(), api_enable_requests=False))
    with pytest.raises(Forbidden, match="local network"):
        decoded("http://127.0.0.1/x.png", Settings())


@contextmanager
def server(*answers: bytes):
    """Answer one connection after the other with the given bytes; yields what was asked for and how to connect."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def work() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    reached: list[tuple[str, int]] = []

    def connect(address, timeout):
        reached.append(address)
        return socket.create_connection(listener.getsockname(), timeout)

    try:
        yield asked, reached, connect
    finally:
        listener.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def names(known: dict[str, str]):
    def resolve(host: str, port: int):
        return [(2, 1, 6, "", (known[host], port))]
    return resolve


NAMES = names({"a.example": "93.184.216.34", "inside.example": "10.0.0.7", "b.example": "93.184.216.35"})


def test_a_picture_is_fetched_from_the_address_that_was_checked() -> None:
    with server(answer(b"picture")) as (asked, reached, connect):
        assert Fetcher(resolve=NAMES, connect=connect).fetch("http://a.example/x.png?y=1") == b"picture"
    assert reached == [("93.184.216.34", 80)]
    assert asked[0].startswith(b"GET /x.png?y=1 HTTP/1.1\r\n") and b"Host: a.example\r\n" in asked[0]


def test_redirects_are_followed_and_checked_again() -> None:
    on = answer(b"", "302 Found", "Location: http://b.example:81/z")
    with server(on, answer(b"there")) as (_, reached, connect):
        assert Fetcher(resolve=NAMES, connect=connect).fetch("http://a.example/") == b"there"
    assert reached == [("93.184.216.34", 80), ("93.184.216.35", 81)]
    for target in ("http://inside.example/", "file:///etc/passwd", "gopher://a.example/"):
        with server(answer(b"", "302 Found", f"Location: {target}")) as (_, reached, connect):
            with pytest.raises((Forbidden, InvalidRequest)):
                Fetcher(resolve=NAMES, connect=connect).fetch("http://a.example/")
        assert len(reached) == 1


def test_a_circle_of_redirects_ends() -> None:
    on = answer(b"", "302 Found", "Location: /again")
    with server(*[on] * 10) as (_, reached, connect):
        with pytest.raises(InvalidRequest, match="again and again"):
            Fetcher(resolve=NAMES, connect=connect).fetch("http://a.example/")
    assert len(reached) == 6


def test_one_local_address_among_several_is_enough_to_refuse() -> None:
    def both(host: str, port: int):
        return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", ("127.0.0.1", port))]
    with pytest.raises(Forbidden):
        Fetcher(resolve=both).fetch("http://a.example/")


def test_local_addresses_are_fetched_only_where_allowed() -> None:
    with server(answer(b"mine")) as (_, _, connect):
        with pytest.raises(Forbidden):
            Fetcher(resolve=NAMES, connect=connect).fetch("http://inside.example/")
        assert Fetcher(allow_local=True, resolve=NAMES, connect=connect).fetch("http://inside.example/") == b"mine"


@pytest.mark.parametrize("reply", [answer(b"no", "404 Not Found"), b"nonsense\r\n\r\n", b""])
def test_a_server_that_has_no_picture_is_an_error_of_the_request(reply: bytes) -> None:
    with server(reply) as (_, _, connect):
        with pytest.raises(InvalidRequest, match="could not be fetched"):
            Fetcher(resolve=NAMES, connect=connect).fetch("http://a.example/")


def test_size_and_time_are_bounded() -> None:
    with server(answer(b"x" * 5000)) as (_, _, connect):
        with pytest.raises(InvalidRequest, match="MiB"):
            Fetcher(resolve=NAMES, connect=connect, most=4000).fetch("http://a.example/")
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(InvalidRequest, match="could not be fetched"):
        Fetcher(resolve=NAMES, seconds=0.2, connect=lambda _, timeout: socket.create_connection(
            listener.getsockname(), timeout)).fetch("http://a.example/")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://a.example:99999/", "https:///x"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Fetcher(resolve=NAMES, connect=None).fetch(url)
