"""A gRPC server and a client that calls it, with nothing generated: the messages are bytes.

    echo_grpc.py serve PORT              answers on every address of both families
    echo_grpc.py call HOST:PORT BYTES    one unary call and one stream in each direction, compared byte for byte

Used by the integration tests and by scripts/demo: unmodified grpcio on both sides.
"""

import hashlib
import os
import sys
from concurrent import futures

import grpc

CHUNK = 64 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


def serve(port):
    def echo(request, context):
        return request

    def echo_stream(requests, context):
        for request in requests:
            yield request

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("overlay.Echo", {
        "Unary": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.stream_stream_rpc_method_handler(echo_stream),
    }),))
    if server.add_insecure_port(f"[::]:{port}") == 0 and server.add_insecure_port(f"0.0.0.0:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    server.wait_for_termination()


def call(target, size):
    payload = os.urandom(size)
    with grpc.insecure_channel(target, options=OPTIONS) as channel:
        answer = channel.unary_unary("/overlay.Echo/Unary")(payload, timeout=60, wait_for_ready=True)
        compare("unary", payload, answer)
        chunks = (payload[at:at + CHUNK] for at in range(0, size, CHUNK))
        answer = b"".join(channel.stream_stream("/overlay.Echo/Stream")(chunks, timeout=60, wait_for_ready=True))
        compare("stream", payload, answer)


def compare(kind, sent, received):
    if sent != received:
        sys.exit(f"{kind}: sent {len(sent)} bytes {hashlib.sha256(sent).hexdigest()}, "
                 f"received {len(received)} bytes {hashlib.sha256(received).hexdigest()}")
    print(f"{kind} {len(received)} bytes sha256 {hashlib.sha256(received).hexdigest()}")


match sys.argv[1:]:
    case ["serve", port]:
        serve(int(port))
    case ["call", target, size]:
        call(target, int(size))
    case _:
        sys.exit(__doc__)
