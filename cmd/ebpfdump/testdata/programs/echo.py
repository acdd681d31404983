# Sends back what it gets at 127.0.0.1, port 7100 by TCP and 7101 by UDP, in the way that is asked for.
import asyncio, multiprocessing, multiprocessing.reduction, os, signal, socket, socketserver, sys, threading

way = sys.argv[1]


def listen():
    return socket.create_server(("127.0.0.1", 7100), backlog=64)


def answer(connection):
    while data := connection.recv(5000):
        connection.sendall(data)
    connection.close()


def with_asyncio():
    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, sender):
            self.transport.sendto(data, sender)

    async def stream(reader, writer):
        while data := await reader.read(5000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def run():
        await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, ("127.0.0.1", 7101))
        server = await asyncio.start_server(stream, sock=listen())
        await server.serve_forever()

    asyncio.run(run())


def with_threading():
    listener = listen()
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def with_forking():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = listen()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            if way == "forking exec":
                os.dup2(connection.fileno(), 0)
                os.dup2(connection.fileno(), 1)
                os.execvp("cat", ["cat"])
            while data := os.read(connection.fileno(), 100):
                connection.sendall(data)
            os._exit(0)
        connection.close()


def with_multiprocessing():
    def work(pipe):
        while True:
            handle = multiprocessing.reduction.recv_handle(pipe)
            connection = socket.socket(fileno=handle)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=work, args=(there,), daemon=True)
    worker.start()
    listener = listen()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        connection, _ = listener.accept()
        multiprocessing.reduction.send_handle(here, connection.fileno(), worker.pid)
        connection.close()


def with_peeking():
    def datagrams():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 7101))
        while True:
            size = s.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
            data, sender = s.recvfrom(size)  # exactly as much as there is
            s.sendto(data, sender)

    def stream(connection):
        while connection.recv(10, socket.MSG_PEEK):
            connection.sendall(connection.recv(3000))
        connection.close()

    threading.Thread(target=datagrams, daemon=True).start()
    listener = listen()
    while True:
        threading.Thread(target=stream, args=(listener.accept()[0],), daemon=True).start()


def with_calls():
    def parts():
        return [bytearray(n) for n in (1, 7, 100, 3, 1000)]

    def joined(buffers, n):
        return b"".join(buffers)[:n]

    def read(connection):
        return os.read(connection.fileno(), 50)

    def readv(connection):
        buffers = parts()
        return joined(buffers, os.readv(connection.fileno(), buffers))

    def recvmsg(connection):
        buffers = parts()
        return joined(buffers, connection.recvmsg_into(buffers, 100)[0])

    def recvfrom(connection):
        return connection.recvfrom(70)[0]

    def recv_all(connection):
        # As much as there is at least, which a peek tells.
        return connection.recv(len(connection.recv(2000, socket.MSG_PEEK)), socket.MSG_WAITALL)

    def fails(connection):
        try:
            os.pread(connection.fileno(), 10, 0)
        except OSError:
            return recvfrom(connection)

    def stream(connection):
        while True:
            for call in (read, readv, recvmsg, recvfrom, recv_all, fails):
                data = call(connection)
                if not data:
                    connection.close()
                    return
                connection.sendall(data)

    listener = listen()
    while True:
        threading.Thread(target=stream, args=(listener.accept()[0],), daemon=True).start()


{"asyncio": with_asyncio, "threading": with_threading, "forking": with_forking, "forking exec": with_forking,
 "multiprocessing": with_multiprocessing, "peeking": with_peeking, "calls": with_calls}[way]()
