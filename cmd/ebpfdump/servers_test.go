package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// requireTools skips a test that needs root and programs of the distribution,
// unless the environment says that it must run.
func requireTools(tb testing.TB, tools ...string) {
	tb.Helper()
	names := []string{"privileged"}
	for _, tool := range tools {
		names = append(names, "tool:"+tool)
	}
	for _, name := range names {
		ok, err := condition(name)
		if err != nil {
			tb.Fatal(err)
		}
		if !ok {
			tb.Skipf("needs %s", name)
		}
	}
}

// bench is a network namespace with a server of the distribution in it.
type bench struct {
	testing.TB
	dir    string
	ns     *capture.Namespace
	server *exec.Cmd
}

func newBench(tb testing.TB, server ...string) *bench {
	tb.Helper()
	ns, err := capture.NewNamespace()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ns.Close)
	b := &bench{TB: tb, dir: tb.TempDir(), ns: ns}
	b.server = exec.Command(server[0], server[1:]...)
	b.server.Dir = b.dir
	return b
}

// start starts the server, and waits until a client gets an answer.
func (b *bench) start(client ...string) {
	b.Helper()
	var log output
	b.server.Stdout, b.server.Stderr = &log, &log
	if err := b.ns.Do(b.server.Start); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.server.Wait() }()
	b.Cleanup(func() {
		_ = b.server.Process.Signal(unix.SIGTERM)
		<-ended
	})
	for begin := time.Now(); ; {
		_, err := b.run(client...)
		if err == nil {
			return
		}
		if time.Since(begin) > testPatience {
			b.Fatalf("%v does not serve: %v\n%s", b.server.Args, err, log.String())
		}
		select {
		case err := <-ended:
			ended <- err
			b.Fatalf("%v ended: %v\n%s", b.server.Args, err, log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// run runs a program in the namespace to its end.
func (b *bench) run(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	var stdout, stderr output
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := b.ns.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("%v: %w: %s", args, err, stderr.String())
	}
	return stdout.String(), nil
}

func (b *bench) must(args ...string) string {
	b.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// output collects what a program says.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// capture runs ebpfdump on the server while the traffic goes on, and returns
// the file and what ebpfdump said.
func (b *bench) capture(traffic func(), flags ...string) (file, said string) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	file = filepath.Join(b.dir, "live.pcapng")
	// Under the name by which TestMain knows that it is the command.
	cmd := &exec.Cmd{Path: exe, Args: append([]string{"ebpfdump", "capture", "--pid", fmt.Sprint(b.server.Process.Pid), "-o", file}, flags...)}
	if err := os.Symlink(exe, filepath.Join(b.dir, "ebpfdump")); err != nil && !errors.Is(err, os.ErrExist) {
		b.Fatal(err)
	}
	cmd.Path = filepath.Join(b.dir, "ebpfdump")
	var stderr output
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for begin := time.Now(); !strings.Contains(stderr.String(), "listening on"); {
		select {
		case err := <-ended:
			b.Fatalf("ebpfdump ended: %v\n%s", err, stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(begin) > testPatience {
			_ = cmd.Process.Kill()
			b.Fatalf("ebpfdump does not listen\n%s", stderr.String())
		}
	}
	traffic()
	time.Sleep(100 * time.Millisecond) // the end of the last connection
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		b.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			b.Fatalf("ebpfdump: %v\n%s", err, stderr.String())
		}
	case <-time.After(testPatience):
		_ = cmd.Process.Signal(unix.SIGQUIT) // Go says where it hangs
		<-ended
		b.Fatalf("ebpfdump does not end\n%s", stderr.String())
	}
	return file, stderr.String()
}

// fields asks tshark for fields of the packets that a filter selects.
func (b *bench) fields(file, filter string, names ...string) [][]string {
	b.Helper()
	args := []string{"tshark", "-r", file, "-Y", filter, "-T", "fields"}
	for _, name := range names {
		args = append(args, "-e", name)
	}
	var rows [][]string
	for line := range strings.Lines(b.must(args...)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// userBytes is what the user view holds, one string for each connection.
func (b *bench) userBytes(file, iface string) []string {
	b.Helper()
	var order []string
	streams := make(map[string]string)
	for _, row := range b.fields(file, fmt.Sprintf("frame.interface_name == %q", iface), "exported_pdu.src_port", "data.data") {
		data, err := hex.DecodeString(row[1])
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := streams[row[0]]; !ok {
			order = append(order, row[0])
		}
		streams[row[0]] += string(data)
	}
	var all []string
	for _, port := range order {
		all = append(all, streams[port])
	}
	return all
}

// checkWhole holds that nothing was lost and that every delivery has its packet.
func (b *bench) checkWhole(file, said, kind string) {
	b.Helper()
	if !strings.Contains(said, "\n0 packets dropped by kernel\n") {
		b.Errorf("ebpfdump said:\n%s", said)
	}
	known := make(map[string]bool)
	for _, row := range b.fields(file, fmt.Sprintf("frame.interface_name == %q", kind+":kernel"), "frame.packet_id") {
		known[row[0]] = true
	}
	strange := false
	for _, row := range b.fields(file, fmt.Sprintf("frame.interface_name == %q", kind+":user"), "frame.packet_id", "frame.comment", "frame.number") {
		if !known[row[0]] {
			b.Errorf("frame %s has packet id %q, which no packet has: %s", row[2], row[0], row[1])
			strange = true
		}
	}
	if strange {
		b.Logf("ebpfdump said:\n%s\nand captured:\n%s", said, b.must("tshark", "-r", file, "-t", "r", "-n"))
	}
	if bad := b.fields(file, "_ws.malformed || ip.checksum.status == 0", "frame.number"); len(bad) > 0 {
		b.Errorf("tshark finds faults in frames %v", bad)
	}
}

const nginxConfig = `daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 2;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path temp; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen 8080; location / { root www; } location /upload { client_max_body_size 8m; dav_methods PUT; root www; } }
}
`

func newNginx(tb testing.TB) *bench {
	tb.Helper()
	requireTools(tb, "nginx", "curl", "tshark")
	b := newBench(tb, "nginx")
	b.server.Args = append(b.server.Args, "-p", b.dir, "-c", filepath.Join(b.dir, "nginx.conf"), "-e", "stderr", "-g", "user root;")
	files := map[string]string{"nginx.conf": nginxConfig, "www/index.html": "hello from nginx\n", "www/upload/x": ""}
	for name, text := range files {
		path := filepath.Join(b.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			tb.Fatal(err)
		}
	}
	b.start("curl", "-fs", "http://127.0.0.1:8080/")
	return b
}

// Nginx does the work in children of the process that is joined.
func TestNginx(t *testing.T) {
	t.Parallel()
	b := newNginx(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	if err := os.WriteFile(filepath.Join(b.dir, "body"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	file, said := b.capture(func() {
		if got := b.must("curl", "-fs", "-A", "test", "http://127.0.0.1:8080/"); got != "hello from nginx\n" {
			t.Errorf("nginx answers %q", got)
		}
		b.must("curl", "-fs", "-A", "test", "-H", "Expect:", "-T", "body", "http://127.0.0.1:8080/upload/y")
	}, "--port", "8080")
	stored, err := os.ReadFile(filepath.Join(b.dir, "www/upload/y"))
	if err != nil || !bytes.Equal(stored, body) {
		t.Errorf("nginx stored %d bytes of %d: %v", len(stored), len(body), err)
	}
	want := []string{
		"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
		fmt.Sprintf("PUT /upload/y HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: test\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n%s", len(body), body),
	}
	got := b.userBytes(file, "tcp:user")
	if len(got) != len(want) {
		t.Fatalf("%d connections in the user view, want %d\n%s", len(got), len(want), said)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("connection %d: %d bytes in the user view, sent %d: %.200q", i, len(got[i]), len(want[i]), got[i])
		}
	}
	b.checkWhole(file, said, "tcp")
}

func TestRedis(t *testing.T) {
	t.Parallel()
	requireTools(t, "redis-server", "redis-cli", "tshark")
	b := newBench(t, "redis-server", "--port", "6390", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	b.start("redis-cli", "-p", "6390", "ping")
	var sent strings.Builder
	file, said := b.capture(func() {
		for i := range 20 {
			value := strings.Repeat("v", 1+i*1000)
			if got := b.must("redis-cli", "-p", "6390", "set", "key", value); got != "OK\n" {
				t.Errorf("set: %q", got)
			}
			if got := b.must("redis-cli", "-p", "6390", "strlen", "key"); got != fmt.Sprintln(len(value)) {
				t.Errorf("strlen: %q", got)
			}
			fmt.Fprintf(&sent, "*3\r\n$3\r\nset\r\n$3\r\nkey\r\n$%d\r\n%s\r\n", len(value), value)
			fmt.Fprint(&sent, "*2\r\n$6\r\nstrlen\r\n$3\r\nkey\r\n")
		}
	})
	if got := strings.Join(b.userBytes(file, "tcp:user"), ""); got != sent.String() {
		t.Errorf("%d bytes in the user view, sent %d", len(got), sent.Len())
	}
	b.checkWhole(file, said, "tcp")
}

func TestDNS(t *testing.T) {
	t.Parallel()
	requireTools(t, "dnsmasq", "dig", "tshark")
	b := newBench(t, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=5300", "--listen-address=127.0.0.1",
		"--bind-interfaces", "--no-resolv", "--no-hosts", "--address=/example.test/192.0.2.7", "--pid-file=", "--user=root", "--log-facility=-")
	dig := func(options ...string) []string {
		return append([]string{"dig", "@127.0.0.1", "-p", "5300", "+time=5", "+qr"}, options...)
	}
	b.start(dig("+short", "example.test")...)
	id := regexp.MustCompile(`id: (\d+)`)
	var asked, askedTCP []string
	file, said := b.capture(func() {
		for i := range 20 {
			name := fmt.Sprintf("host%d.example.test", i)
			options := []string{name}
			if i%5 == 0 {
				options = append(options, "+tcp")
			}
			answer := b.must(dig(options...)...)
			if !strings.Contains(answer, "192.0.2.7") {
				t.Errorf("dig says %s", answer)
			}
			question := id.FindStringSubmatch(answer)[1] + " " + name
			if i%5 != 0 {
				asked = append(asked, question)
			} else {
				askedTCP = append(askedTCP, question)
			}
		}
	})
	var got, gotTCP []string
	for _, row := range b.fields(file, `frame.interface_name == "udp:user"`, "data.data") {
		data, err := hex.DecodeString(row[0])
		if err != nil {
			t.Fatalf("%q: %v", row[0], err)
		}
		got = append(got, question(data))
	}
	if strings.Join(got, "\n") != strings.Join(asked, "\n") {
		t.Errorf("asked %v, the user view has %v", asked, got)
	}
	// A child of dnsmasq reads each connection, which dnsmasq itself has closed by then.
	for _, stream := range b.userBytes(file, "tcp:user") {
		gotTCP = append(gotTCP, question([]byte(stream)[min(2, len(stream)):])) // behind its length
	}
	if strings.Join(gotTCP, "\n") != strings.Join(askedTCP, "\n") {
		t.Errorf("asked over TCP %v, the user view has %v\n%s", askedTCP, gotTCP, said)
	}
	kernel := b.fields(file, `frame.interface_name == "udp:kernel"`, "frame.packet_id", "udp.payload")
	user := b.fields(file, `frame.interface_name == "udp:user"`, "frame.packet_id", "data.data")
	if fmt.Sprint(kernel) != fmt.Sprint(user) {
		t.Error("the views have other payloads")
	}
	b.checkWhole(file, said, "udp")
}

// forkingServer leaves each connection to a child, and has the next one under the
// same descriptor when the child reads.
const forkingServer = `
import os, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", 7100), backlog=64)
while True:
    connection, _ = listener.accept()
    if os.fork() == 0:
        if sys.argv[1] == "exec":
            os.dup2(connection.fileno(), 0)
            os.execvp("cat", ["cat"])
        while True:
            data = os.read(connection.fileno(), 100)
            if not data:
                os._exit(0)
            connection.sendall(data)
    connection.close()
`

// The bytes of a connection stay its own, and no file that a child reads is
// taken for a socket.
func TestForkingServer(t *testing.T) {
	t.Parallel()
	requireTools(t, "python3", "tshark")
	for _, way := range []string{"read", "exec"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "python3", "-c", forkingServer, way)
			b.start("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7100")
			const connections, messages = 8, 3
			file, said := b.capture(func() {
				var conns []net.Conn
				err := b.ns.Do(func() error {
					for range connections {
						conn, err := net.Dial("tcp", "127.0.0.1:7100")
						if err != nil {
							return err
						}
						conns = append(conns, conn)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				for n := range messages {
					for i, conn := range conns {
						if _, err := fmt.Fprintf(conn, "message %d of connection %d.", n, i); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(20 * time.Millisecond)
				}
				for _, conn := range conns {
					// The server has read everything when it closes its end.
					if err := errors.Join(conn.(*net.TCPConn).CloseWrite(), conn.SetReadDeadline(time.Now().Add(testPatience))); err != nil {
						t.Error(err)
					}
					if _, err := io.Copy(io.Discard, conn); err != nil {
						t.Error(err)
					}
					conn.Close()
				}
			}, "--port", "7100")
			got := b.userBytes(file, "tcp:user")
			var want []string
			for i := range connections {
				var all string
				for n := range messages {
					all += fmt.Sprintf("message %d of connection %d.", n, i)
				}
				want = append(want, all)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("user view %q, want %q\n%s", got, want, said)
			}
			b.checkWhole(file, said, "tcp")
		})
	}
}

// question is the id of a DNS message and the name that it asks for.
func question(message []byte) string {
	if len(message) < 12 {
		return fmt.Sprintf("%x", message)
	}
	return fmt.Sprintf("%d %s", int(message[0])<<8|int(message[1]), questionName(message[12:]))
}

// questionName reads a name of a DNS message (RFC 1035, section 4.1.2).
func questionName(data []byte) string {
	var labels []string
	for len(data) > 0 && data[0] != 0 && int(data[0]) < len(data) {
		labels = append(labels, string(data[1:1+data[0]]))
		data = data[1+data[0]:]
	}
	return strings.Join(labels, ".")
}

var requests = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

// BenchmarkLive prints the throughput of nginx under wrk without and with both
// views captured, in turn, and their ratio: the median of those of the turns,
// since another guest of the machine may spoil one.
func BenchmarkLive(b *testing.B) {
	requireTools(b, "wrk")
	bench := newNginx(b)
	load := func() float64 {
		out := bench.must("wrk", "-t", "1", "-c", "16", "-d", "1s", "http://127.0.0.1:8080/")
		var perSecond float64
		if _, err := fmt.Sscan(requests.FindStringSubmatch(out)[1], &perSecond); err != nil {
			b.Fatal(err)
		}
		return perSecond
	}
	load()
	var off, on, ratios []float64
	for b.Loop() {
		without, with := load(), 0.0
		if _, said := bench.capture(func() { with = load() }); !strings.Contains(said, "\n0 packets dropped by kernel\n") {
			b.Log(said)
		}
		off, on, ratios = append(off, without), append(on, with), append(ratios, with/without)
	}
	b.ReportMetric(median(off), "req/s-off")
	b.ReportMetric(median(on), "req/s-on")
	b.ReportMetric(median(ratios), "on/off")
	b.ReportMetric(0, "ns/op")
}

// median is the upper one of an even number.
func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
