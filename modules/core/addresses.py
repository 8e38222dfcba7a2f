"""Which addresses belong to the public internet, and which to this machine or its network."""

from __future__ import annotations

import ipaddress
from typing import Any


def public_address(address: str) -> bool:
    """Return whether an IP address belongs to the public internet, also where one is wrapped in another."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            ip = ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
        else:
            ip = ip.ipv4_mapped or ip.sixtofour or ip
    # Only this part of the addresses of version 6 is given out; what lies outside of it may be wrapped otherwise.
    given_out = ip.version == 4 or ip in ipaddress.ip_network("2000::/3")
    return bool(given_out and ip.is_global and not ip.is_multicast)
