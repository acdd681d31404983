package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
)

// postgres is Debian's directory of PostgreSQL's programs, for any version.
const postgres = "/usr/lib/postgresql/*/bin/"

const sshdConfig = `Port 2222
ListenAddress 127.0.0.1
HostKey $DIR/hostkey
AuthorizedKeysFile $DIR/userkey.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
`

const ssh = "ssh -q -p 2222 -i userkey -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 "

const mosquittoConfig = `listener 1883 127.0.0.1
allow_anonymous true
persistence false
user root
`

var redis = program{
	needs: []string{"redis-server", "redis-cli", "redis-benchmark"}, common: true,
	server: []string{"redis-server", "--port", "6390", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"},
	ready:  []string{"redis-cli", "-p", "6390", "ping"},
	scope:  scope{serves: []uint16{6390}},
}

var dataPrograms = []program{
	redis.as("redis", redis.scope, func(b *bench) {
		for i := range 5 {
			value := string(numbered(1 + i*4000))
			if got := b.must("redis-cli", "-p", "6390", "set", "key", value); got != "OK\n" {
				b.Errorf("set: %q", got)
			}
			if got := b.must("redis-cli", "-p", "6390", "strlen", "key"); got != fmt.Sprintln(len(value)) {
				b.Errorf("strlen: %q", got)
			}
		}
	}),
	redisThreads(),
	{
		name: "memcached", needs: []string{"memcached"},
		server: []string{"memcached", "-u", "root", "-l", "127.0.0.1", "-p", "11311", "-U", "11311", "-t", "4"},
		ready:  []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/11311"},
		scope:  scope{serves: []uint16{11311}},
		traffic: func(b *bench) {
			memcachedStreams(b)
			memcachedDatagrams(b)
		},
	},
	{
		name: "PostgreSQL", needs: []string{postgres + "postgres", postgres + "pgbench", "setpriv"},
		prepare: func(b *bench) {
			b.must("chmod", "755", filepath.Dir(b.dir)) // a user who is nobody here has to get there
			b.must("install", "-d", "-o", "postgres", "pg")
			b.must("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", installed(postgres+"initdb"), "-D", b.dir+"/pg", "-A", "trust", "-N")
		},
		server: []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "sh", "-c",
			`exec ` + postgres + `postgres -D $DIR/pg -p 5433 -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off`},
		ready: []string{postgres + "psql", "-h", "127.0.0.1", "-p", "5433", "-U", "postgres", "-c", "select 1"},
		scope: scope{serves: []uint16{5433}},
		traffic: func(b *bench) {
			b.write("long.sql", []byte("select length('"+string(numbered(200_000))+"');\n"))
			server := []string{"-h", "127.0.0.1", "-p", "5433", "-U", "postgres"}
			if got := b.must(append([]string{installed(postgres + "psql"), "-At", "-f", "long.sql"}, server...)...); got != "200000\n" {
				b.Errorf("psql says %q", got)
			}
			pgbench := append([]string{installed(postgres + "pgbench")}, server...)
			b.must(append(pgbench, "-q", "-i", "-I", "dtG", "postgres")...)
			b.must(append(pgbench, "-n", "-C", "-c", "4", "-t", "10", "postgres")...)
		},
	},
	{
		name: "sshd", needs: []string{"/usr/sbin/sshd", "ssh", "ssh-keygen"},
		files: map[string]string{"sshd_config": sshdConfig},
		prepare: func(b *bench) {
			b.must("mkdir", "-p", "/run/sshd") // the service's unit does that
			for _, key := range []string{"hostkey", "userkey"} {
				b.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
			}
		},
		server: []string{"/usr/sbin/sshd", "-D", "-e", "-f", "$DIR/sshd_config"},
		ready:  []string{"bash", "-c", ssh + "true"},
		scope:  scope{serves: []uint16{2222}},
		traffic: func(b *bench) {
			body := numbered(300_000)
			b.write("body", body)
			b.must("bash", "-c", ssh+"'cat >"+b.dir+"/stored' <body")
			b.must("bash", "-c", ssh+"'cat "+b.dir+"/stored' >back")
			if !bytes.Equal(b.read("stored"), body) || !bytes.Equal(b.read("back"), body) {
				b.Error("ssh transferred something else")
			}
		},
	},
	{
		name: "mosquitto", needs: []string{"mosquitto", "mosquitto_pub", "mosquitto_sub"},
		files:  map[string]string{"mosquitto.conf": mosquittoConfig},
		server: []string{"mosquitto", "-c", "$DIR/mosquitto.conf"},
		ready:  []string{"mosquitto_pub", "-p", "1883", "-t", "ready", "-m", "x"},
		scope:  scope{serves: []uint16{1883}},
		traffic: func(b *bench) {
			b.write("body", numbered(100_000))
			// A retained message is delivered to later subscribers.
			b.must("mosquitto_pub", "-p", "1883", "-t", "large", "-r", "-q", "2", "-f", "body")
			if got := b.must("mosquitto_sub", "-p", "1883", "-t", "large", "-C", "1", "-N"); got != string(b.read("body")) {
				b.Errorf("%d bytes were published", len(got))
			}
			for range 5 {
				b.must("mosquitto_pub", "-p", "1883", "-t", "small", "-q", "1", "-m", "message")
			}
		},
	},
}

// redisThreads reads in several threads.
func redisThreads() program {
	p := redis.as("redis io-threads", redis.scope, func(b *bench) {
		b.must("redis-benchmark", "-p", "6390", "-q", "-t", "set", "-n", "3000", "-c", "40", "-P", "8", "-d", "200")
	})
	p.server = append(p.server[:len(p.server):len(p.server)], "--io-threads", "4", "--io-threads-do-reads", "yes")
	return p
}

func memcachedStreams(b *bench) {
	for i := range 10 {
		conn := b.dial("tcp", "127.0.0.1:11311")
		value := string(numbered(1 + i*10_000))
		fmt.Fprintf(conn, "set key%d 0 0 %d\r\n%s\r\nget key%d\r\nquit\r\n", i, len(value), value, i)
		want := fmt.Sprintf("STORED\r\nVALUE key%d 0 %d\r\n%s\r\nEND\r\n", i, len(value), value)
		if got, err := io.ReadAll(conn); err != nil || string(got) != want {
			b.Errorf("memcached answers %.60q: %v", got, err)
		}
		conn.Close()
	}
}

// memcachedDatagrams sends requests with memcached's datagram header: id, number, count,
// 0.
func memcachedDatagrams(b *bench) {
	conn := b.dial("udp", "127.0.0.1:11311")
	defer conn.Close()
	answer := make([]byte, 2000)
	for i := range 30 {
		head := string([]byte{0, byte(i), 0, 0, 0, 1, 0, 0})
		fmt.Fprintf(conn, "%sget key0\r\n", head)
		n, err := conn.Read(answer)
		if want := head + "VALUE key0 0 1\r\n0\r\nEND\r\n"; err != nil || string(answer[:n]) != want {
			b.Errorf("memcached answers %q: %v", answer[:n], err)
		}
	}
}
