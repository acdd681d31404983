package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// nginxConfig has a server of files, and a reverse proxy.
const nginxConfig = `daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 2;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path temp; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  client_max_body_size 8m;
  server {
    listen 8080;
    listen [::]:8080 ipv6only=on;
    root www;
    location /upload { dav_methods PUT; }
  }
  server { listen 8081; location / { proxy_pass http://127.0.0.1:9000; } }
}
`

var nginx = program{
	needs: []string{"nginx", "curl"}, common: true,
	files:  map[string]string{"nginx.conf": nginxConfig, "www/index.html": "hello from nginx\n", "www/upload/x": ""},
	server: []string{"nginx", "-p", "$DIR", "-c", "$DIR/nginx.conf", "-e", "stderr", "-g", "user root;"},
	ready:  []string{"curl", "-fs", "-o", "ready", "http://127.0.0.1:8080/"},
}

const haproxyConfig = `defaults
  timeout client 1m
  timeout server 1m
  timeout connect 1m
frontend requests
  mode http
  bind 127.0.0.1:8082
  default_backend requests
backend requests
  mode http
  server upstream 127.0.0.1:9000
listen connections
  mode tcp
  bind 127.0.0.1:8083
  server upstream 127.0.0.1:9000
`

var webPrograms = []program{
	// Nginx does the work in children of the process that is joined.
	nginx.as("nginx", scope{serves: []uint16{8080}}, func(b *bench) {
		body := numbered(640_000)
		b.write("body", body)
		for i := range 5 {
			host := [2]string{"127.0.0.1", "[::1]"}[i%2]
			if got := b.must("curl", "-fs", "http://"+host+":8080/"); got != "hello from nginx\n" {
				b.Errorf("nginx answers %q", got)
			}
		}
		b.must("curl", "-fs", "-H", "Expect:", "-T", "body", "http://127.0.0.1:8080/upload/y")
		if stored := b.read("www/upload/y"); !bytes.Equal(stored, body) {
			b.Errorf("nginx stored %d bytes of %d", len(stored), len(body))
		}
	}),
	nginx.as("nginx proxy_pass", scope{serves: []uint16{8081}, calls: []uint16{9000}}, throughNginx),
	nginx.as("nginx, started", scope{serves: []uint16{8080, 8081}, calls: []uint16{9000}}, throughNginx).asCommand(),
	{
		name: "haproxy", needs: []string{"haproxy", "bash"},
		files:  map[string]string{"haproxy.cfg": haproxyConfig},
		server: []string{"haproxy", "-db", "-f", "haproxy.cfg"},
		ready:  []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8082"},
		scope:  scope{serves: []uint16{8082, 8083}, calls: []uint16{9000}},
		traffic: func(b *bench) {
			b.serveHTTP("127.0.0.1:9000")
			b.requests("127.0.0.1:8082")
			b.requests("127.0.0.1:8083")
		},
	},
	{
		name: "php -S", needs: []string{"php"},
		files:   map[string]string{"index.php": `<?php echo strlen(file_get_contents("php://input")), str_repeat(".", 100000);`},
		server:  []string{"php", "-S", "127.0.0.1:7100", "index.php"},
		ready:   []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7100"},
		scope:   scope{serves: []uint16{7100}},
		traffic: func(b *bench) { b.requests("127.0.0.1:7100") },
	},
}

// as returns a row for one of several variants of a program.
func (p program) as(name string, s scope, traffic func(*bench)) program {
	p.name, p.scope, p.traffic = name, s, traffic
	return p
}

// asCommand returns the same row with the program started by ebpfdump.
func (p program) asCommand() program {
	p.started = true
	return p
}

// throughNginx makes requests to a server of the test through nginx.
func throughNginx(b *bench) {
	b.serveHTTP("127.0.0.1:9000")
	b.requests("127.0.0.1:8081")
}

// serveHTTP answers with the length of each request's body and some more, until the end
// of the test.
func (b *bench) serveHTTP(address string) {
	b.Helper()
	listener := b.listen(address)
	server := &http.Server{Handler: http.HandlerFunc(answerLength)}
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { server.Close() })
}

func answerLength(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d%s", n, strings.Repeat(".", 100_000))
}

// requests makes requests to a server that answers like answerLength.
func (b *bench) requests(address string) {
	b.Helper()
	b.requestsBy(address, 3000, func(_ context.Context, network, address string) (conn net.Conn, err error) {
		err = b.ns.Do(func() error {
			conn, err = net.Dial(network, address)
			return err
		})
		return conn, err
	})
}

// numbered returns bytes of which no two parts are equal.
func numbered(size int) []byte {
	var all []byte
	for n := 0; len(all) < size; n++ {
		all = fmt.Appendf(all, "%07d ", n)
	}
	return all[:size]
}

// requestsBy makes requests over a connection each, and over a shared one. The largest
// body is 49 times the unit.
func (b *bench) requestsBy(address string, unit int, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	b.Helper()
	for _, keep := range []bool{false, true} {
		transport := &http.Transport{DisableKeepAlives: !keep, DialContext: dial}
		client := &http.Client{Transport: transport, Timeout: testTimeout}
		for i := range 8 {
			size := i * i * unit
			answer, err := client.Post("http://"+address+"/", "text/plain", bytes.NewReader(numbered(size)))
			if err != nil {
				b.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if want := fmt.Sprint(size) + strings.Repeat(".", 100_000); err != nil || string(text) != want {
				b.Errorf("%s answers %.40q (%d bytes): %v", address, text, len(text), err)
			}
		}
		client.CloseIdleConnections()
	}
}
