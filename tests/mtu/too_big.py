"""Sends a host ICMP "too big" errors about its datagrams, like a router that has seen them, until it is killed.

    too_big.py VICTIM PEER PORT MTU valid|mangled

Valid: quotes a datagram that VICTIM could have sent from PORT to PORT of PEER. Mangled: messages with everything that can be
wrong, in turn: checksum, length, quote, MTU. Sends twenty messages a second.
"""

import ipaddress
import itertools
import socket
import struct
import sys
import time


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def quote(victim, peer, port, length=1452):
    udp = struct.pack("!HHHH", port, port, length + 8, 0) + struct.pack("<II", 4, 7)
    if victim.version == 6:
        return struct.pack("!IHBB", 6 << 28, length + 8, 17, 63) + victim.packed + peer.packed + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, length + 28, 1, 0x4000, 63, 17, 0) + victim.packed + peer.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def too_big(version, mtu, quoted):
    """The ICMP message. Over IPv6 the kernel fills in the checksum."""
    if version == 6:
        return struct.pack("!BBHI", 2, 0, 0, mtu) + quoted
    body = struct.pack("!HH", 0, mtu) + quoted
    return struct.pack("!BBH", 3, 4, checksum(struct.pack("!BBH", 3, 4, 0) + body)) + body


def mangled(version, victim, peer, port):
    """Messages that are each wrong in a different way."""
    good = quote(victim, peer, port)
    for mtu in (0, 1, 67, 68, 1279, 0xFFFF):
        yield too_big(version, mtu, good[:8])
    whole = too_big(version, 576, good)
    yield whole[:2] + b"\xAB\xCD" + whole[4:]
    for end in (4, 8, 9, 20, 28, 40, 48, len(whole) - 1):
        yield whole[:end]
    yield too_big(version, 576, quote(victim, peer, port + 1))
    yield too_big(version, 576, quote(peer, victim, port))
    # The wrong version, no header at all, and a header that claims the maximum length.
    yield too_big(version, 576, bytes([good[0] ^ 0x20]) + good[1:])
    yield too_big(version, 576, b"\xFF" * 64)
    yield too_big(version, 576, bytes([good[0] | 0x0F]) + good[1:])
    # A datagram that is longer than any we send, and an impossible MTU.
    yield too_big(version, 1280, quote(victim, peer, port, 65_000)[: len(good)])
    yield too_big(version, 0x7FFFFFFF if version == 6 else 0xFFFF, good)


def main():
    victim, peer = (ipaddress.ip_address(address) for address in sys.argv[1:3])
    port, mtu, kind = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    version = victim.version
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if version == 6 else (socket.AF_INET, 1)
    sender = socket.socket(family, socket.SOCK_RAW, protocol)
    if kind == "valid":
        messages = [too_big(version, mtu, quote(victim, peer, port))]
    else:
        messages = list(mangled(version, victim, peer, port))
    for message in itertools.cycle(messages):
        sender.sendto(message, (str(victim), 0))
        time.sleep(0.05)


main()
