# Does to sockets what is hard to follow, in the way that is asked for. Clients begin when there is
# a file "go", and leave a file "done".
import array, os, socket, sys, threading, time

way = sys.argv[1]


def serve(listener):
    while True:
        connection, _ = listener.accept()
        if question := connection.recv(100):
            connection.sendall(b"answer to " + question)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        connection.close()


def ask(address, question, port=0):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if port:
        s.bind(("127.0.0.1", port))
    s.connect(address)
    s.sendall(question)
    answer = b""
    while data := s.recv(100):
        answer += data
    s.close()
    assert answer == b"answer to " + question, answer


def when_told(run):
    def told():
        while not os.path.exists("go"):
            time.sleep(0.01)
        run()
        open("done", "w").close()
        time.sleep(1000)
    return told


def opens():
    for i in range(5000):
        ask(("127.0.0.1", 9000), b"question %d" % i)


def one_port():
    # Whose end closes first has to wait for what is still on its way: that is the server's.
    for i in range(100):
        while True:
            try:
                ask(("127.0.0.1", 9000), b"question %d" % i, 20000)
                break
            except OSError:
                time.sleep(0.001)


def half_closed():
    # The connection has ended when its last bytes are read.
    for i in range(20):
        s = socket.socket()
        s.connect(("127.0.0.1", 9000))
        s.sendall(b"question %d" % i)
        s.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        assert s.recv(6) == b"answer"
        assert s.recv(100) == b" to question %d" % i
        assert s.recv(100) == b""
        s.close()


def accepts():
    serve(socket.create_server(("127.0.0.1", 7100), backlog=4096))


def listeners():
    six = socket.socket(socket.AF_INET6)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    six.bind(("::", 7100))
    six.listen(64)
    all = [six, socket.create_server(("0.0.0.0", 7100)), socket.create_server(("127.0.0.2", 7102)), socket.create_server(("127.0.0.3", 7102))]
    for _ in range(4):
        all.append(socket.create_server(("127.0.0.1", 7103), reuse_port=True))
    for listener in all[1:]:
        threading.Thread(target=serve, args=(listener,)).start()
    serve(six)


def connected_anew():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(20):
        s.connect(("127.0.0.1", 7201 + i % 2))
        for n in range(3):
            message = b"datagram %d %d" % (i, n)
            s.send(message)
            assert s.recv(100) == message


def files():
    # A file and a pipe come to have the number that was the socket's.
    with open("file", "w") as f:
        f.write("of a file, and not of a socket. " * 100)
    file = os.open("file", os.O_RDONLY)
    listener = socket.create_server(("127.0.0.1", 7100))
    while True:
        connection, _ = listener.accept()
        n = connection.detach()
        data = os.read(n, 100)
        kept = os.dup(n)
        os.dup2(file, n)
        os.lseek(n, 0, os.SEEK_SET)
        os.read(n, 50)
        os.write(kept, data)
        data = os.read(kept, 100)
        from_pipe, to_pipe = os.pipe()
        os.dup2(from_pipe, n)
        os.write(to_pipe, b"of a pipe")
        os.read(n, 50)
        os.dup2(kept, n)  # and back
        while data:
            os.write(n, data)
            data = os.read(n, 100)
        for fd in (n, kept, from_pipe, to_pipe):
            os.close(fd)


def two_ports():
    listener = socket.create_server(("127.0.0.1", 7100))
    os.dup2(listener.fileno(), 50)
    threading.Thread(target=serve, args=(socket.create_server(("127.0.0.1", 7300)),)).start()
    serve(listener)


def hands_over():
    listener = socket.create_server(("127.0.0.1", 7100))
    while True:
        connection, _ = listener.accept()
        with socket.socket(socket.AF_UNIX) as to:
            to.connect("handover")
            to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))])
            to.recv(1)  # it has it
        connection.close()


def takes_over():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("handover")
    listener.listen()
    while True:
        who, _ = listener.accept()
        _, rights, _, _ = who.recvmsg(1, 100)
        fds = array.array("i")
        fds.frombytes(rights[0][2])
        who.send(b"x")
        connection = socket.socket(fileno=fds[0])
        while data := connection.recv(100):
            connection.sendall(data)
        connection.close()


{"opens": when_told(opens), "one port": when_told(one_port), "half closed": when_told(half_closed), "accepts": accepts, "listeners": listeners,
 "connected anew": when_told(connected_anew), "files": files, "two ports": two_ports,
 "hands over": hands_over, "takes over": takes_over}[way]()
