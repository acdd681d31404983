// Sends back what it gets at 127.0.0.1, port 7100 by TCP and 7101 by UDP, in the way that is asked for.
import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;

public class Echo {
    static final InetSocketAddress STREAMS = new InetSocketAddress("127.0.0.1", 7100);
    static final InetSocketAddress DATAGRAMS = new InetSocketAddress("127.0.0.1", 7101);

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "blocking" -> blocking();
            case "nio" -> nio();
            case "datagram" -> datagram();
        }
    }

    static void blocking() throws IOException {
        ServerSocket listener = new ServerSocket();
        listener.bind(STREAMS, 64);
        while (true) {
            Socket connection = listener.accept();
            new Thread(() -> {
                try (connection) {
                    connection.getInputStream().transferTo(connection.getOutputStream());
                } catch (IOException e) {
                    e.printStackTrace();
                }
            }).start();
        }
    }

    static void nio() throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(STREAMS, 64).configureBlocking(false).register(selector, SelectionKey.OP_ACCEPT);
        ByteBuffer buffer = ByteBuffer.allocateDirect(3000);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    listener.accept().configureBlocking(false).register(selector, SelectionKey.OP_READ);
                    continue;
                }
                SocketChannel connection = (SocketChannel) key.channel();
                if (connection.read(buffer.clear()) < 0) {
                    connection.close();
                    continue;
                }
                buffer.flip();
                while (buffer.hasRemaining()) connection.write(buffer);
            }
            selector.selectedKeys().clear();
        }
    }

    static void datagram() throws IOException {
        DatagramSocket socket = new DatagramSocket(DATAGRAMS);
        DatagramPacket packet = new DatagramPacket(new byte[65536], 65536);
        while (true) {
            packet.setLength(65536);
            socket.receive(packet);
            socket.send(packet);
        }
    }
}
