import dataclasses

import pytest

from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.launcher.access import address, check_exposure, host, is_loopback, parse_accounts, read_accounts
from modules.launcher.flags import Flags

ANN = (("ann", "pa:ss"),)


@pytest.mark.parametrize("name, expected", [
    ("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("LOCALHOST.", True), ("::1", True), ("[::1]", True),
    ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False), ("localhost.example.org", False),
    ("127.0.0.1.example.org", False), ("", False), ("2130706433", False),
])
def test_loopback(name, expected):
    assert is_loopback(name) is expected


@pytest.mark.parametrize("flags", [
    Flags(listen=True), Flags(server_name="0.0.0.0"), Flags(server_name="192.168.1.2"), Flags(server_name="box"),
    Flags(share=True), Flags(share=True, server_name="127.0.0.1"), Flags(listen=True, server_name="::"),
    Flags(nowebui=True, listen=True), Flags(api=True, listen=True),
])
def test_reachable_by_others_it_needs_an_account(flags):
    with pytest.raises(Forbidden, match="--gradio-auth"):
        check_exposure(flags)
    check_exposure(dataclasses.replace(flags, accounts=ANN))


@pytest.mark.parametrize("flags", [
    Flags(), Flags(server_name="localhost"), Flags(listen=True, server_name="127.0.0.1"),
])
def test_on_this_machine_alone_it_needs_none(flags):
    check_exposure(flags)


def test_accounts_come_from_every_flag_once(tmp_path):
    file = tmp_path / "accounts"
    file.write_text("\ufeffbob:b, cat:c\n\n dan:d \nann:pa:ss\n", encoding="utf-8")
    flags = Flags(gradio_auth="ann:pa:ss", api_auth="eve:e,ann:pa:ss", gradio_auth_path=str(file))
    assert read_accounts(flags) == (*ANN, ("eve", "e"), ("bob", "b"), ("cat", "c"), ("dan", "d"))


def test_a_file_without_accounts_opens_nothing(tmp_path):
    file = tmp_path / "accounts"
    file.write_text(" \n,\n")
    accounts = read_accounts(Flags(gradio_auth_path=str(file)))
    with pytest.raises(Forbidden):
        check_exposure(Flags(listen=True, gradio_auth_path=str(file), accounts=accounts))


@pytest.mark.parametrize("entry", ["secret", "secret:", ":secret"])
def test_a_malformed_account_is_refused_without_repeating_it(entry):
    with pytest.raises(InvalidRequest) as caught:
        parse_accounts(["ann:a," + entry])
    assert "secret" not in str(caught.value) and "number 2" in str(caught.value)


def test_a_missing_file_of_accounts_is_named():
    with pytest.raises(NotFound, match="nowhere"):
        read_accounts(Flags(gradio_auth_path="/nowhere/accounts"))


@pytest.mark.parametrize("flags, expected", [
    (Flags(), "http://127.0.0.1:7860/"),
    (Flags(listen=True), "http://127.0.0.1:7860/"),
    (Flags(server_name="::1"), "http://[::1]:7860/"),
    (Flags(server_name="box.example", tls_keyfile="k", tls_certfile="c", subpath="/sd/"), "https://box.example:7860/sd/"),
])
def test_the_address_to_open(flags, expected):
    assert address(flags, 7860) == expected


def test_an_explicit_name_wins_over_listen():
    assert host(Flags(listen=True, server_name="10.0.0.1")) == "10.0.0.1"
