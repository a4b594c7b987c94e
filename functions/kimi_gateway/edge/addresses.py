"""Internet addresses as they come in: parsed, and what of them counts as one client."""

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
    """What counts as one address: of IPv6 the /64, which is the least that one customer gets."""
    if ":" not in address:
        return address
    found = parsed(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return address if found is None else str(found)
