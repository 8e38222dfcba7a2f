import pytest

from modules.core.addresses import public_address


@pytest.mark.parametrize("address, public", [
    ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True), ("127.0.0.1", False), ("10.1.2.3", False),
    ("172.16.0.1", False), ("192.168.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
    ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
    ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:93.184.216.34", True),
    ("fec0::1", False), ("::127.0.0.1", False), ("64:ff9b:1::7f00:1", False), ("::ffff:0:7f00:1", False),
    ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("ff02::1", False),
])
def test_only_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert public_address(address) is public
