#!/usr/bin/python3
"""Judges the golden vectors of overlay's signed objects, from docs/objects.md alone.

    verify.py objects.json

It uses none of overlay's code: PyNaCl verifies signatures, cbor2 reads CBOR. It prints what it disagrees with, and then
fails. Debian packages: python3-nacl, python3-cbor2.
"""

import base64
import hashlib
import ipaddress
import json
import re
import sys

import cbor2
import nacl.bindings
import nacl.exceptions
import nacl.signing

DAY = 24 * 3600 * 1000
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
RESERVED = (
    "all any admin agent agents arpa broadcasthost config dns example gateway internal invalid local localhost me "
    "network none ns overlay relay rendezvous self test"
).split()


class Refused(Exception):
    """Carries the code of the reason."""


def need(condition, code):
    if not condition:
        raise Refused(code)


# Types of values. Each returns whether a value has the type.


def number(bits):
    return lambda value: type(value) is int and value < 2**bits


def octets(*lengths):
    return lambda value: type(value) is bytes and (not lengths or len(value) in lengths)


def text(value):
    return type(value) is str


def boolean(value):
    return type(value) is bool


def one_of(*values):
    return lambda value: type(value) is int and value in values


def list_of(of):
    return lambda value: type(value) is list and all(map(of, value))


def row(*types):
    return lambda value: type(value) is list and len(value) == len(types) and all(of(v) for of, v in zip(types, value))


key, u64 = octets(32), number(64)

# For each kind: the signer, the names and the types of its fields in the order of their keys. `?`: it may be missing.
KINDS = {
    "network": ("network", [
        ("network", key), ("sequence", u64), ("issued", u64), ("name", text), ("pool", row(octets(4), number(8))),
        ("rendezvous", list_of(row(text, key))), ("is_closed", boolean)]),
    "record": ("identity", [
        ("network", key), ("identity", key), ("sequence", u64), ("issued", u64), ("fresh_until", u64), ("name", text),
        ("ipv4?", octets(4)), ("tunnel_keys", list_of(key)), ("mailbox_x25519", key), ("mailbox_xwing?", octets()),
        ("tags", list_of(text)), ("services", list_of(row(text, one_of(6, 17), number(16), text))),
        ("visibility", one_of(0, 1, 2)), ("abilities", u64), ("attestation?", row(octets(), octets()))]),
    "grant": ("issuer", [
        ("network", key), ("issuer", key), ("subject", key), ("sequence", u64), ("issued", u64), ("expires?", u64),
        ("allow", list_of(text)), ("request?", octets(16))]),
    "revoke": ("issuer", [
        ("network", key), ("issuer", key), ("subject", key), ("sequence", u64), ("issued", u64)]),
    "request": ("from", [
        ("network", key), ("from", key), ("to", key), ("id", octets(16)), ("issued", u64), ("expires", u64),
        ("reason", text), ("want", list_of(text)), ("grant", octets()), ("psk_share", octets(32))]),
    "approval": ("from", [
        ("network", key), ("from", key), ("to", key), ("request", octets(16)), ("grant", octets()),
        ("psk_share", octets(32))]),
    "endpoints": ("from", [
        ("network", key), ("from", key), ("to", key), ("sequence", u64), ("issued", u64),
        ("places", list_of(row(octets(), number(16)))), ("relays?", list_of(row(octets(), octets())))]),
    "permit": ("issuer", [
        ("network", key), ("issuer", key), ("subject", key), ("issued", u64), ("expires", u64)]),
    "token": ("network", [
        ("network", key), ("token", key), ("issued", u64), ("expires", u64), ("uses", number(32)),
        ("is_ephemeral", boolean), ("name?", text), ("tags", list_of(text))]),
    "membership": ("rendezvous", [
        ("network", key), ("rendezvous", key), ("identity", key), ("issued", u64), ("expires", u64)]),
    "release": ("identity", [
        ("network", key), ("identity", key), ("sequence", u64), ("issued", u64), ("name", text)]),
    "auth": ("", [
        ("role", one_of(0, 1)), ("versions", list_of(number(16))), ("network", key), ("rendezvous", key),
        ("identity", key), ("epoch", u64), ("hash", octets(32)), ("issued", u64)]),
    "bind": ("token", [("network", key), ("token", key), ("identity", key), ("nonce", octets(16))]),
    "relay_bind": ("identity", [
        ("network", key), ("relay", key), ("identity", key), ("nonce", octets(16)), ("cookie", octets(16)),
        ("epoch", u64), ("lowest", u64), ("lowest_of", list_of(row(key, u64))), ("membership?", octets())]),
    "relay_permit": ("issuer", [
        ("network", key), ("relay", key), ("issuer", key), ("subject", key), ("sequence", u64), ("issued", u64),
        ("expires", u64)]),
}
MAX_ENVELOPE = 4096 + 71
IDENTITIES = {"network", "identity", "issuer", "subject", "from", "to", "token", "rendezvous", "relay", "lowest_of"}


def open_object(kind, envelope):
    """Returns the fields of an object, or raises Refused."""
    need(len(envelope) <= MAX_ENVELOPE, "too_long")
    parts = read(envelope)
    need(row(one_of(1), octets(), octets(64))(parts), "malformed")
    _, payload, signature = parts
    need(len(payload) <= (4096 if kind == "record" else 2048), "too_long")
    content = read(payload)
    need(type(content) is dict, "malformed")
    check_form(content, 1)
    signer, described = KINDS[kind]
    fields = {}
    for at, (name, has_type) in enumerate(described):
        if at in content:
            need(has_type(content[at]), "malformed")
            fields[name.rstrip("?")] = content[at]
        else:
            need(name.endswith("?"), "malformed")
    if kind == "auth":
        signer = ["identity", "rendezvous"][fields["role"]]
    check_identity(fields[signer])
    try:
        message = b"overlay/1 " + kind.encode() + b"\0" + payload
        nacl.signing.VerifyKey(fields[signer]).verify(message, signature)
    except nacl.exceptions.BadSignatureError:
        raise Refused("bad_signature") from None
    for name in IDENTITIES & fields.keys():
        # The rendezvous of a network and the subjects of a bind are lists.
        at = 0 if name == "lowest_of" else 1
        for value in [fields[name]] if type(fields[name]) is bytes else [entry[at] for entry in fields[name]]:
            check_identity(value)
    check_fields(kind, fields)
    return fields


def read(encoded):
    """Reads CBOR that has only one form. What is read and written again has to be the same: no indefinite or too long
    lengths, no tags, no key twice, nothing behind the end."""
    try:
        value = cbor2.loads(encoded)
        need(cbor2.dumps(value) == encoded, "malformed")
    except (cbor2.CBORError, RecursionError, OverflowError, MemoryError, TypeError, ValueError):
        raise Refused("malformed") from None
    return value


def check_form(value, depth):
    if type(value) is dict:
        need(depth <= 4, "malformed")
        need(all(type(k) is int and 0 <= k < 2**64 for k in value), "malformed")
        need(list(value) == sorted(value), "malformed")
        for k, inner in value.items():
            need(k < 128, "unknown_key")
            check_form(inner, depth + 1)
    elif type(value) is list:
        need(depth <= 4, "malformed")
        for inner in value:
            check_form(inner, depth + 1)
    else:
        need(type(value) in (bytes, str, bool) or type(value) is int and 0 <= value < 2**64, "malformed")


def check_identity(encoded):
    """Refuses what is not a point of edwards25519 in its only encoding, and points of order 1, 2, 4 and 8."""
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    need(y < P and (square == 0 or pow(square, (P - 1) // 2, P) == 1), "weak_key")
    # Doubling three times gives the neutral element, y = 1, for points of small order. Only y and x^2 are needed.
    for _ in range(3):
        y, square = double(y, square)
    need(y != 1, "weak_key")


def double(y, square):
    """Returns y and x^2 of twice a point: x' = 2xy / (1 + dx^2y^2), y' = (y^2 + x^2) / (1 - dx^2y^2)."""
    product = D * square * y * y % P
    new_y = (y * y + square) * pow(1 - product, -1, P) % P
    return new_y, 4 * square * y * y * pow(1 + product, -2, P) % P


def check_x25519(encoded):
    """Refuses keys that give a secret of zeros."""
    try:
        nacl.bindings.crypto_scalarmult(b"\x42" * 32, encoded)
    except (nacl.exceptions.RuntimeError, nacl.exceptions.CryptoError):
        raise Refused("weak_key") from None


def check_label(label, is_name):
    need(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", label), "bad_name")
    if is_name:
        need(not label.isdigit() and not label.startswith("xn--") and label not in RESERVED, "bad_name")


def check_scopes(scopes):
    need(len(scopes) <= 32, "bad_scope")
    plain = r"(0|[1-9][0-9]*)"
    for scope in scopes:
        if re.fullmatch(plain, scope):
            need(int(scope) <= 255 and int(scope) not in (0, 43, 44, 60), "bad_scope")
        elif scope not in ("any", "icmp", "tcp", "udp"):
            ports = re.fullmatch(f"(tcp|udp)/{plain}(-{plain})?", scope)
            need(ports, "bad_scope")
            first = int(ports[2])
            last = int(ports[4] or first)
            need(0 < first <= last < 65536, "bad_scope")


def check_tags(fields):
    for tag in fields["tags"]:
        check_label(tag, is_name=False)
    need(len(fields["tags"]) <= 16 and len(set(fields["tags"])) == len(fields["tags"]), "bad_value")


def check_place(address, port, good):
    good(port > 0 and len(address) in (4, 16))
    ip = ipaddress.ip_address(address)
    good(not ip.is_unspecified and not ip.is_multicast and address != b"\xff" * 4)
    good(ip.version == 4 or ip.ipv4_mapped is None)


def check_relays(fields, good):
    if "relays" not in fields:
        return
    good(1 <= len(fields["relays"]) <= 2)
    relays = set()
    for addresses, permit in fields["relays"]:
        lengths = {6: [6], 18: [18], 24: [6, 18]}.get(len(addresses))
        good(lengths)
        for length in lengths:
            place, addresses = addresses[:length], addresses[length:]
            check_place(place[:-2], int.from_bytes(place[-2:], "big"), good)
        permit = part("relay_permit", permit)
        ends = ("network", permit["network"]), ("from", permit["issuer"]), ("to", permit["subject"])
        need(all(fields[name] == value for name, value in ends), "bad_part")
        relays.add(permit["relay"])
    good(len(relays) == len(fields["relays"]))


def check_fields(kind, fields):
    good = lambda condition: need(condition, "bad_value")
    if "name" in fields:
        check_label(fields["name"], is_name=True)
    if "sequence" in fields:
        good(fields["sequence"] > 0)
    if "subject" in fields:
        good(fields["issuer"] != fields["subject"])
    if "to" in fields:
        good(fields["from"] != fields["to"])
    if "expires" in fields:
        longest = {"request": 30 * DAY, "membership": 7 * DAY, "relay_permit": 30 * DAY}.get(kind, 2**64)
        good(0 < fields["expires"] - fields["issued"] <= longest)
    for name in {"allow", "want"} & fields.keys():
        check_scopes(fields[name])
    if "tags" in fields:
        check_tags(fields)
    if kind == "network":
        check_network(fields, good)
    elif kind == "record":
        check_record(fields, good)
    elif kind == "endpoints":
        good(len(fields["places"]) <= 16)
        for address, port in fields["places"]:
            check_place(address, port, good)
        check_relays(fields, good)
    elif kind == "request":
        good(len(fields["reason"].encode()) <= 256)
        check_grant(fields)
    elif kind == "approval":
        need(check_grant(fields).get("request") == fields["request"], "bad_part")
    elif kind == "relay_bind":
        subjects = [subject for subject, _ in fields["lowest_of"]]
        good(fields["epoch"] > 0 and len(subjects) <= 12 and len(set(subjects)) == len(subjects))
        good(fields["identity"] not in subjects)
        good(all(sequence > fields["lowest"] for _, sequence in fields["lowest_of"]))
        if "membership" in fields:
            membership = part("membership", fields["membership"])
            need(all(membership[name] == fields[name] for name in ("network", "identity")), "bad_part")
    elif kind == "auth":
        good(1 <= len(fields["versions"]) <= 8)


def check_network(fields, good):
    octets_of_pool, prefix = fields["pool"]
    good(8 <= prefix <= 24)
    try:
        pool = ipaddress.ip_network((octets_of_pool, prefix))
    except ValueError:
        raise Refused("bad_value") from None
    first = octets_of_pool[0]
    good(first != 0 and first != 127 and not pool.is_multicast)
    good(len(fields["rendezvous"]) <= 8)
    for url, _ in fields["rendezvous"]:
        good(len(url) <= 128 and re.fullmatch(r"https://(?![/:])[!-~]+", url) and not set(url) & set('#?@\\"<>'))


def check_record(fields, good):
    x25519 = fields["tunnel_keys"] + [fields["mailbox_x25519"]]
    xwing = fields.get("mailbox_xwing")
    if xwing is not None:
        good(len(xwing) == 1216)
        x25519.append(xwing[-32:])
    for public in x25519:
        check_x25519(public)
        good(int.from_bytes(public, "little") < P)
    good(1 <= len(fields["tunnel_keys"]) <= 2 and len(set(fields["tunnel_keys"])) == len(fields["tunnel_keys"]))
    good(0 <= fields["fresh_until"] - fields["issued"] <= 7 * DAY)
    good(len(fields["services"]) <= 16)
    for name, _, port, about in fields["services"]:
        check_label(name, is_name=False)
        good(port > 0 and len(about.encode()) <= 64)
    if "attestation" in fields:
        token, bind = (part(kind, envelope) for kind, envelope in zip(("token", "bind"), fields["attestation"]))
        need(token["network"] == bind["network"] == fields["network"], "bad_part")
        need(bind["token"] == token["token"] and bind["identity"] == fields["identity"], "bad_part")
        need(token.get("name", fields["name"]) == fields["name"], "bad_part")


def check_grant(fields):
    grant = part("grant", fields["grant"])
    between = [grant[name] for name in ("network", "issuer", "subject")]
    need(between == [fields[name] for name in ("network", "from", "to")], "bad_part")
    return grant


def part(kind, envelope):
    try:
        return open_object(kind, envelope)
    except Refused:
        raise Refused("bad_part") from None


# Keys and addresses.


def key_of(written):
    """Returns the key that has this text."""
    need(re.fullmatch(r"[a-z2-7]{51}[aq]", written), "not_a_key")
    return base64.b32decode(written.upper() + "====")


def network_prefix(network):
    start = b"\xfd" + hashlib.sha256(b"overlay net v1\0" + network).digest()[:3]
    return ipaddress.ip_network((start + bytes(12), 32))


def ipv6(network, identity):
    host = hashlib.sha256(b"overlay ip6 v1\0" + bytes([32]) + network + identity).digest()[:12]
    return ipaddress.ip_address(network_prefix(network).network_address.packed[:4] + host)


def ipv4_candidate(pool, identity, i):
    digest = hashlib.sha256(b"overlay ip4" + identity + i.to_bytes(4, "big")).digest()
    return pool[1 + int.from_bytes(digest[:8], "big") % (pool.num_addresses - 2)]


# Vectors.


def as_json(value):
    if type(value) is bytes:
        return value.hex()
    return list(map(as_json, value)) if type(value) is list else value


def disagreements(vectors):
    for vector in vectors["good"]:
        where = f"good {vector['kind']}, {vector['note']}"
        try:
            fields = open_object(vector["kind"], bytes.fromhex(vector["envelope"]))
        except Refused as refused:
            yield f"{where}: {refused}"
            continue
        found = {name: as_json(value) for name, value in fields.items()}
        if found != vector["fields"]:
            yield f"{where}: {found}"
    for vector in vectors["bad"]:
        where = f"bad {vector['kind']}, {vector['note']}"
        try:
            open_object(vector["kind"], bytes.fromhex(vector["envelope"]))
            yield f"{where}: it is good"
        except Refused as refused:
            if str(refused) != vector["refused"]:
                yield f"{where}: {refused}, not {vector['refused']}"
    for vector in vectors["keys"]:
        public = bytes(nacl.signing.SigningKey(bytes.fromhex(vector["secret"])).verify_key)
        if not public.hex() == vector["public"] or key_of(vector["text"]) != public:
            yield f"key {vector['text']}"
    for written in vectors["not_keys"]:
        try:
            key_of(written)
            yield f"not a key: {written!r}"
        except Refused:
            pass
    for vector in vectors["addresses"]:
        network, identity = key_of(vector["network"]), key_of(vector["identity"])
        pool = ipaddress.ip_network(vector["pool"])
        found = {
            "network_prefix": str(network_prefix(network)),
            "ipv6": str(ipv6(network, identity)),
            "ipv4_candidates": [str(ipv4_candidate(pool, identity, i)) for i in range(len(vector["ipv4_candidates"]))],
        }
        for name, value in found.items():
            if value != vector[name]:
                yield f"{name} of {vector['identity']}: {value}, not {vector[name]}"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        vectors = json.load(file)
    wrong = list(disagreements(vectors))
    for line in wrong:
        print(line)
    counts = [f"{len(vectors[name])} {name}" for name in ("good", "bad", "keys", "not_keys", "addresses")]
    print(", ".join(counts) + f": {len(wrong)} disagreements")
    sys.exit(1 if wrong else 0)


main()
