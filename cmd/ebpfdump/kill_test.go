package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// kills is how often TestKill kills a capture.
const kills = 25

// After kill -9 in heavy traffic a file consists of complete blocks, and at most one
// partial block at the end. That ends at a page boundary, where the kernel interrupts the
// write of a process being killed. tshark and capinfos read everything before it.
func TestKill(t *testing.T) {
	requireTools(t, "tshark", "capinfos")
	dir := t.TempDir()
	random := testutil.Random(t)
	var torn, packets int
	var last []byte
	for range kills {
		path := filepath.Join(dir, "killed.pcapng")
		killCapture(t, path, time.Duration(random.IntN(500))*time.Millisecond)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		end, n := wholeBlocks(t, content)
		if rest := content[end:]; len(rest) > 0 {
			torn++
			checkTorn(t, content, end)
			readsTorn(t, path, n)
		}
		packets += n
		if n > 0 {
			last = content[:end]
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d files have a torn block at the end; %d packets in all", torn, kills, packets)
	if packets == 0 {
		t.Fatal("there was no traffic")
	}
	// Make sure to cover what otherwise happens now and then: a file that ends at a page
	// boundary.
	whole, cut := filepath.Join(dir, "whole.pcapng"), filepath.Join(dir, "cut.pcapng")
	size := len(last) - len(last)%os.Getpagesize()
	end, n := wholeBlocks(t, last[:size])
	for end == size { // a block that ends with the page is not torn
		size -= os.Getpagesize()
		end, n = wholeBlocks(t, last[:size])
	}
	if err := errors.Join(os.WriteFile(whole, last[:end], 0o600), os.WriteFile(cut, last[:size], 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, said, err := tsharkCount(whole); got != n || said != "" || err != nil {
		t.Errorf("tshark reads %d packets of %d: %v %s", got, n, err, said)
	}
	readsTorn(t, cut, n)
}

// killCapture kills a capture some time after the first packets.
func killCapture(t *testing.T, path string, after time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Under the name by which TestMain knows that it is the command.
	link := filepath.Join(filepath.Dir(path), "ebpfdump")
	if err := os.Symlink(exe, link); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	cmd := exec.Command(link, "capture", "--sock", "udp", "-l", "127.0.0.1:0", "-o", path)
	var stderr output
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for begin := time.Now(); address == ""; time.Sleep(5 * time.Millisecond) {
		if found := listeningOn.FindStringSubmatch(stderr.String()); found != nil {
			address = found[1]
		}
		if time.Since(begin) > testTimeout {
			break
		}
	}
	stop := make(chan struct{})
	sent := make(chan struct{})
	go func() { defer close(sent); flood(address, stop) }()
	for begin := time.Now(); address != "" && time.Since(begin) < testTimeout; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Size() > 1<<20 {
			break
		}
	}
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	close(stop)
	<-sent
	if address == "" {
		t.Fatalf("it does not listen: %s", stderr.String())
	}
}

var listeningOn = regexp.MustCompile(`listening on udp ([0-9.:]+),`)

// flood sends datagrams as fast as it can.
func flood(address string, stop chan struct{}) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 4)
	for {
		select {
		case <-stop:
			return
		default:
			_, _ = conn.Write(data)
		}
	}
}

// The blocks of pcapng that a capture begins with, and that hold its packets.
const (
	blockSection  = 0x0a0d0d0a
	blockPacket   = 6
	smallestBlock = 12
)

// wholeBlocks counts the packets in a file up to the first incomplete block.
func wholeBlocks(t *testing.T, file []byte) (end, packets int) {
	t.Helper()
	if len(file) < smallestBlock || binary.LittleEndian.Uint32(file) != blockSection {
		t.Fatalf("no section at the beginning: % x", file[:min(len(file), 64)])
	}
	for end+smallestBlock <= len(file) {
		kind, length := binary.LittleEndian.Uint32(file[end:]), int(binary.LittleEndian.Uint32(file[end+4:]))
		if length < smallestBlock || length%4 != 0 {
			t.Fatalf("a block of type %#x and %d bytes at %d of %d", kind, length, end, len(file))
		}
		if length > len(file)-end {
			break
		}
		if again := int(binary.LittleEndian.Uint32(file[end+length-4:])); again != length {
			t.Fatalf("the block at %d has %d bytes at its beginning and %d at its end", end, length, again)
		}
		if kind == blockPacket {
			packets++
		}
		end += length
	}
	return end, packets
}

// checkTorn checks that the rest after the last complete block is the start of a packet
// block, up to the end of a page.
func checkTorn(t *testing.T, file []byte, end int) {
	t.Helper()
	rest := file[end:]
	if len(file)%os.Getpagesize() != 0 {
		t.Errorf("a file of %d bytes is not cut at a page", len(file))
	}
	if len(rest) >= 8 && binary.LittleEndian.Uint32(rest) != blockPacket {
		t.Errorf("it is torn in something else than a packet: % x", rest[:8])
	}
}

// readsTorn checks that other tools read a truncated file.
func readsTorn(t *testing.T, path string, packets int) {
	t.Helper()
	got, said, err := tsharkCount(path)
	if got != packets || !strings.Contains(said, "cut short") || err == nil {
		t.Errorf("tshark reads %d packets of %d: %v %s", got, packets, err, said)
	}
	out, err := exec.Command("capinfos", "-M", "-c", path).CombinedOutput()
	found := regexp.MustCompile(`Number of packets: +([0-9]+)`).FindSubmatch(out)
	if found == nil || string(found[1]) != strconv.Itoa(packets) || !bytes.Contains(out, []byte("cut short")) {
		t.Errorf("capinfos: %v, want %d packets: %s", err, packets, out)
	}
}

// tsharkCount returns the number of packets that tshark reads.
func tsharkCount(path string) (packets int, said string, err error) {
	cmd := exec.Command("tshark", "-r", path, "-T", "fields", "-e", "frame.number")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	for line := range strings.Lines(stderr.String()) {
		if !strings.Contains(line, "Running as user") { // of root it says so each time
			said += line
		}
	}
	return bytes.Count(out, []byte("\n")), said, err
}
