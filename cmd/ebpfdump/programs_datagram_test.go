package main

import (
	"fmt"
	"strings"
	"time"
)

// listensUDP tells whether a UDP port is in use.
func listensUDP(port int) []string {
	return []string{"bash", "-c", fmt.Sprintf("ss -Hlun | grep -q :%d", port)}
}

const rsyslogConfig = `module(load="imudp" BatchSize="32" TimeRequery="2")
input(type="imudp" port="5514" address="127.0.0.1" rcvbufsize="4m")
action(type="omfile" file="$DIR/log")
`

const unboundConfig = `server:
  interface: 127.0.0.1
  interface: ::1
  port: 5300
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "$DIR"
  pidfile: ""
  use-syslog: no
  do-not-query-localhost: no
  module-config: "iterator"
  num-threads: 2
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@5301
`

// chronyServer serves the local time.
const chronyServer = `port 1123
cmdport 0
bindcmdaddress /
pidfile $DIR/server.pid
allow 127.0.0.1
local stratum 1
`

const chronyClient = `server 127.0.0.1 port 1123 iburst maxsamples 1
cmdport 0
bindcmdaddress /
pidfile $DIR/client.pid
`

// dnsmasq serves one domain on a port.
func dnsmasq(port int) []string {
	return []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", fmt.Sprint("--port=", port), "--listen-address=127.0.0.1,::1",
		"--bind-interfaces", "--no-resolv", "--no-hosts", "--address=/example.net/192.0.2.7", "--pid-file=", "--user=root", "--log-facility=-"}
}

// dig looks up a name, which must have an answer.
func dig(port int, options ...string) []string {
	return append([]string{"dig", "-p", fmt.Sprint(port), "+time=5", "+short"}, options...)
}

// questions queries a DNS server in many ways.
func questions(b *bench) {
	for i := range 12 {
		options := []string{[2]string{"@127.0.0.1", "@::1"}[i%2], fmt.Sprintf("host%d.example.net", i)}
		if i%3 == 0 {
			options = append(options, "+tcp")
		}
		if got := b.must(dig(5300, options...)...); !strings.Contains(got, "192.0.2.7") {
			b.Errorf("dig %v says %q", options, got)
		}
	}
}

// Each connection is read by a child of dnsmasq, after dnsmasq itself has closed it.
var dns = program{
	needs: []string{"dnsmasq", "dig"}, common: true,
	server: dnsmasq(5300), ready: dig(5300, "@127.0.0.1", "example.net"),
}

var datagramPrograms = []program{
	dns.as("dnsmasq", scope{serves: []uint16{5300}}, questions),
	dns.as("dnsmasq, started", scope{serves: []uint16{5300}}, questions).asCommand(),
	{
		name: "unbound", needs: []string{"unbound", "dnsmasq", "dig"},
		files:   map[string]string{"unbound.conf": unboundConfig},
		prepare: func(b *bench) { b.start(dnsmasq(5301), dig(5301, "@127.0.0.1", "example.net")) },
		server:  []string{"unbound", "-d", "-c", "$DIR/unbound.conf"},
		ready:   dig(5300, "@127.0.0.1", "ready.example.net"),
		scope:   scope{serves: []uint16{5300}, calls: []uint16{5301}}, traffic: questions,
	},
	{
		name: "rsyslogd", needs: []string{"rsyslogd"},
		files:  map[string]string{"rsyslog.conf": rsyslogConfig, "log": ""},
		server: []string{"rsyslogd", "-n", "-f", "$DIR/rsyslog.conf", "-i", "NONE"},
		ready:  listensUDP(5514),
		scope:  scope{serves: []uint16{5514}},
		traffic: func(b *bench) {
			conn := b.dial("udp", "127.0.0.1:5514")
			defer conn.Close()
			const messages = 300
			for i := range messages {
				fmt.Fprintf(conn, "<13>Oct 11 22:14:15 host program: message %d.%s", i, strings.Repeat("x", i*5))
			}
			for begin := time.Now(); strings.Count(string(b.read("log")), "message") < messages; time.Sleep(20 * time.Millisecond) {
				if time.Since(begin) > testTimeout {
					b.Fatal("rsyslogd has not got all messages")
				}
			}
		},
	},
	{
		name: "chronyd serving", needs: []string{"chronyd"},
		files:   map[string]string{"server.conf": chronyServer, "client.conf": chronyClient},
		server:  []string{"chronyd", "-d", "-x", "-u", "root", "-f", "$DIR/server.conf"},
		ready:   listensUDP(1123),
		scope:   scope{serves: []uint16{1123}},
		traffic: func(b *bench) { b.must(b.expand(chronyQuery)...) },
	},
	// It asks the kernel for transmit timestamps, which come through the error queue.
	{
		name: "chronyd asking", needs: []string{"chronyd"},
		files:      map[string]string{"server.conf": chronyServer, "client.conf": chronyClient},
		aside:      []string{"chronyd", "-d", "-x", "-u", "root", "-f", "$DIR/server.conf"},
		asideReady: listensUDP(1123),
		command:    chronyQuery,
		scope:      scope{calls: []uint16{1123}},
	},
	{
		name: "ping", needs: []string{"ping"},
		command: []string{"ping", "-n", "-c", "3", "-i", "0.2", "-s", "100", "127.0.0.1"},
		check:   threeReplies,
	},
	// It receives nothing but errors.
	{
		name: "traceroute", needs: []string{"traceroute"},
		command: []string{"traceroute", "-n", "-q", "3", "127.0.0.1"},
		check: func(b *bench, r *recording) {
			for _, p := range b.packets(r.file) {
				if p.user && len(p.data) > 0 {
					b.Errorf("frame %d of %s has data, but errors are none: %q", p.frame, p.iface, p.data)
				}
			}
			if said := r.stdout.String(); strings.Count(said, " ms") != 3 {
				b.Errorf("traceroute said %q", said)
			}
		},
	},
}

var chronyQuery = []string{"chronyd", "-Q", "-t", "60", "-u", "root", "-f", "$DIR/client.conf"}

// threeReplies checks that each of three replies was read once.
func threeReplies(b *bench, r *recording) {
	kernel, user := make(map[string]string), make(map[string]string)
	const reply = "icmp.type == 0"
	for _, row := range b.fields(r.file, reply, "frame.packet_id", "icmp.seq") {
		kernel[row[0]] = row[1]
	}
	for _, row := range b.fields(r.file, `frame.interface_name contains ":user"`, "frame.packet_id", "data.data") {
		if _, ok := kernel[row[0]]; !ok {
			b.Errorf("a delivery has id %q, which no reply has", row[0])
		}
		user[row[0]] = row[1]
	}
	if len(kernel) != 3 || len(user) != 3 {
		b.Errorf("%d replies in the kernel view, %d in the user view, sent 3", len(kernel), len(user))
	}
}
