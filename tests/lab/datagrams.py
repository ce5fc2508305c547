"""Sends UDP datagrams in trains, like a program that uses UDP_SEGMENT, and receives them one by one.

    datagrams.py receive PORT COUNT                 waits for COUNT of them, then prints a digest
    datagrams.py send HOST PORT COUNT SIZE TRAIN    COUNT of SIZE bytes, TRAIN per system call, then prints the same digest

The last datagram of a train is 7 bytes shorter. The digest covers their contents, their lengths and their order.
"""

import hashlib
import random
import socket
import sys

SOL_UDP, UDP_SEGMENT, SO_RCVBUFFORCE = 17, 103, 33
LONGEST_WAIT = 20  # seconds


def digest(datagrams):
    whole = hashlib.sha256()
    for datagram in datagrams:
        whole.update(len(datagram).to_bytes(4, "big") + datagram)
    return whole.hexdigest()


def receive(port, count):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        receiver.settimeout(LONGEST_WAIT)
        receiver.bind(("::", port))
        datagrams = []
        try:
            while len(datagrams) < count:
                datagrams.append(receiver.recv(65536))
        except TimeoutError:
            sys.exit(f"{len(datagrams)} of {count} datagrams came")
        print(digest(datagrams))


def send(host, port, count, size, train):
    made = random.Random(count)
    datagrams = [made.randbytes(size if (number + 1) % train else size - 7) for number in range(count)]
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        if train > 1:
            sender.setsockopt(SOL_UDP, UDP_SEGMENT, size)
        for first in range(0, count, train):
            sender.sendto(b"".join(datagrams[first:first + train]), address)
    print(digest(datagrams))


if sys.argv[1] == "receive":
    receive(int(sys.argv[2]), int(sys.argv[3]))
else:
    send(sys.argv[2], *map(int, sys.argv[3:]))
