package main

import (
	"bytes"
	"strings"
)

// clientPrograms are commands that ebpfdump starts.
var clientPrograms = []program{
	client("curl", []string{"curl", "-fs", "-o", "got", "http://127.0.0.1:9000/", "-o", "again", "http://127.0.0.1:9000/"}, true),
	client("wget", []string{"wget", "-q", "-O", "got", "http://127.0.0.1:9000/"}, false),
	// One program opens a socket that the next one reads.
	{
		name: "bash and cat", needs: []string{"bash"}, common: true,
		prepare: func(b *bench) { b.serveAnswers("127.0.0.1:9000") },
		command: []string{"bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9000; printf "question 1" >&3; exec cat <&3`},
		scope:   scope{calls: []uint16{9000}},
		check: func(b *bench, r *recording) {
			if said := r.stdout.String(); said != "answer to question 1" {
				b.Errorf("cat said %q", said)
			}
		},
	},
	{
		name: "dig", needs: []string{"dnsmasq", "dig", "sh"}, common: true,
		aside: dnsmasq(5300), asideReady: dig(5300, "@127.0.0.1", "example.net"),
		command: []string{"sh", "-c", "dig -p 5300 +time=5 @127.0.0.1 a.example.net && dig -p 5300 +time=5 +tcp @::1 b.example.net"},
		scope:   scope{calls: []uint16{5300}},
		check: func(b *bench, r *recording) {
			if said := r.stdout.String(); strings.Count(said, "192.0.2.7") != 2 {
				b.Errorf("dig said %q", said)
			}
		},
	},
}

// client is a program that fetches from a server of the test.
func client(name string, command []string, common bool) program {
	return program{
		name: name, needs: []string{name}, common: common,
		prepare: func(b *bench) { b.serveHTTP("127.0.0.1:9000") },
		command: command,
		scope:   scope{calls: []uint16{9000}},
		check: func(b *bench, _ *recording) {
			if got := b.read("got"); !bytes.Equal(got, []byte("0"+strings.Repeat(".", 100_000))) {
				b.Errorf("%s got %d bytes: %.40q", name, len(got), got)
			}
		},
	}
}
