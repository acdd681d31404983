package outfile

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestAwaitUnread(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	gone := make(chan bool, 1)
	stop := AwaitUnread(writer, func() { gone <- true })
	defer stop()
	if _, err := writer.WriteString("read by nobody"); err != nil {
		t.Fatal(err)
	}
	if len(gone) > 0 {
		t.Error("a pipe is taken for unread that has a reader")
	}
	reader.Close()
	<-gone

	// Of what has no reader, nothing is told, and stop ends all waiting.
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, writer, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, to := range []io.Writer{file, &bytes.Buffer{}, writer} {
		stop := AwaitUnread(to, func() { t.Errorf("%T is taken for unread", to) })
		stop()
		stop()
	}
	reader.Close()
}

func TestAwaitUnreadSocket(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan bool, 1)
	defer AwaitUnread(file, func() { gone <- true })()
	peer.Close()
	<-gone
}
