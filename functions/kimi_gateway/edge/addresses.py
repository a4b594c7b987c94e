"""IP addresses of clients: parsing, and the block that counts as one client."""

from __future__ import annotations

import ipaddress


def parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def block(address: str) -> str:
    """The block that counts as one address: for IPv6 the /64, the smallest block of one customer."""
    if ":" not in address:
        return address
    found = parsed(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return address if found is None else str(found)
