"""Opens TLS, forwards both ways, and writes what was inside to FOLDER/N.agent and FOLDER/N.server.

A file FOLDER/inject that says `agent` or `server` puts one WebSocket message towards that end, once nothing was said for
a moment, so that it stands between two messages.

    recorder.py FOLDER PORT CERTIFICATE KEY TO_ADDRESS TO_PORT
"""
import asyncio
import os
import ssl
import sys
import time

folder, port, certificate, key, to, to_port = sys.argv[1:]
INJECTED = {"agent": b"\x82\x01\x00", "server": b"\x82\x81\x00\x00\x00\x00\x00"}
QUIET = 0.2
count = 0


async def copy(reader, writer, name, said):
    with open(f"{folder}/{name}", "wb", buffering=0) as record:
        while data := await reader.read(65536):
            record.write(data)
            said[0] = time.monotonic()
            writer.write(data)
            await writer.drain()


async def inject(agent, server, said):
    path = f"{folder}/inject"
    while True:
        await asyncio.sleep(0.05)
        if os.path.exists(path) and time.monotonic() - said[0] > QUIET:
            with open(path) as file:
                end = file.read()
            os.remove(path)
            {"agent": agent, "server": server}[end].write(INJECTED[end])


async def serve(from_agent, to_agent):
    global count
    number, count = count, count + 1
    outside = ssl._create_unverified_context()
    from_server, to_server = await asyncio.open_connection(to, int(to_port), ssl=outside)
    said = [time.monotonic()]
    tasks = [
        asyncio.create_task(copy(from_agent, to_server, f"{number}.agent", said)),
        asyncio.create_task(copy(from_server, to_agent, f"{number}.server", said)),
        asyncio.create_task(inject(to_agent, to_server, said)),
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    to_agent.close()
    to_server.close()


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "0.0.0.0", int(port), ssl=context)
    async with server:
        await server.serve_forever()


asyncio.run(main())
