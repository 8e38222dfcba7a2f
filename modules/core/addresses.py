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
    return bool(ip.is_global and not ip.is_multicast)
