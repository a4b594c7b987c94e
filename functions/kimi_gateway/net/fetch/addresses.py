"""Which IP addresses are public. Pure rules, with tables of our own.

`ipaddress.is_global` is not used: its answers change between Python versions, and it is true for NAT64, 6to4,
IPv4-compatible, SIIT and site-local addresses (measured with Python 3.11.7, 2026-11-28).

Sources: the IANA registries of special-purpose IPv4 and IPv6 addresses, RFC 6052 (NAT64), RFC 3056 (6to4),
RFC 4380 (Teredo), RFC 5214 (ISATAP), RFC 7915 (SIIT).
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier NAT; includes Alibaba's metadata service 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's platform service, reachable from every machine there
            "169.254.0.0/16",  # link-local; includes the metadata services of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; includes Oracle's metadata service 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, including Teredo
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: deprecated, leads to an IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
# Prefixes whose IPv4 address inside a network may translate; that address decides.
_TRANSLATED = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
_ISATAP = (
    0x00005EFE,
    0x02005EFE,
)  # upper half of the interface identifier; the lower half is an IPv4 address


def is_public(address: str) -> bool:
    """Whether a connection to this address stays outside of private and special networks.

    `address` is a resolver's result. Text that is not an address, or that has a zone, is not public.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_public_4(parsed) if isinstance(parsed, IPv4Address) else _is_public_6(parsed)


def literal(host: str) -> str | None:
    """The IP address that the host of a URL spells, without brackets; None for a name. Raises ValueError for
    spellings that programs read differently: short, octal, hexadecimal and plain-number forms of IPv4."""
    if ":" in host:
        try:
            return str(IPv6Address(host))
        except AddressValueError:
            raise ValueError("the address is not a valid IPv6 address") from None
    last = host.rstrip(".").rpartition(".")[2]
    if last.isdigit() or last.startswith("0x"):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise ValueError("the address is not four decimal numbers") from None
    return None


def _is_public_4(address: IPv4Address) -> bool:
    return not any(address in network for network in _NOT_PUBLIC_4)


def _is_public_6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    number = int(address)
    inner = IPv4Address(number & 0xFFFFFFFF)
    if any(address in network for network in _TRANSLATED):
        return _is_public_4(inner)
    if address not in _UNICAST_6 or any(address in network for network in _NOT_PUBLIC_6):
        return False
    return (number >> 32) & 0xFFFFFFFF not in _ISATAP or _is_public_4(inner)
