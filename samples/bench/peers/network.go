package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// network is two namespaces that a veth pair joins: va is the sender's, vb the
// receiver's end.
type network struct {
	sender, receiver string
}

const (
	senderMAC   = "02:00:00:00:00:01"
	receiverMAC = "02:00:00:00:00:02"
)

func newNetwork() (_ *network, err error) {
	base := "ebpfdump-peers-" + strconv.Itoa(os.Getpid())
	n := &network{sender: base + "-a", receiver: base + "-b"}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, name := range []string{n.sender, n.receiver} {
		if err := ip("netns", "add", name); err != nil {
			return n, err
		}
		// No packet is to be there but those that are counted.
		// And ports of short connections are to be used again after a second.
		if err := ip("netns", "exec", name, "sh", "-c", `cd /proc/sys/net &&
			if [ -e ipv6/conf/default ]; then echo 1 >ipv6/conf/default/disable_ipv6; fi && echo 1 >ipv4/tcp_tw_reuse`); err != nil {
			return n, err
		}
	}
	if err := ip("link", "add", "va", "address", senderMAC, "netns", n.sender, "type", "veth",
		"peer", "name", "vb", "address", receiverMAC, "netns", n.receiver); err != nil {
		return n, err
	}
	return n, errors.Join(
		n.end(n.sender, "va", senderAddr, receiverAddr, receiverMAC),
		n.end(n.receiver, "vb", receiverAddr, senderAddr, senderMAC),
	)
}

// end sets up one end of the pair. It knows the other's address, so nobody asks.
func (n *network) end(namespace, device, addr, peer, peerMAC string) error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", addr + "/24", "dev", device},
		{"link", "set", device, "up"},
		{"neigh", "replace", peer, "lladdr", peerMAC, "dev", device, "nud", "permanent"},
	} {
		if err := ip(append([]string{"-n", namespace}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) setMTU(bytes int) error {
	mtu := strconv.Itoa(bytes)
	return errors.Join(
		ip("-n", n.sender, "link", "set", "va", "mtu", mtu),
		ip("-n", n.receiver, "link", "set", "vb", "mtu", mtu),
	)
}

// arrived is how many packets have come in at the receiver's end.
func (n *network) arrived() (int, error) {
	out, err := exec.Command("ip", "-n", n.receiver, "-s", "-j", "link", "show", "dev", "vb").Output()
	if err != nil {
		return 0, fmt.Errorf("counting packets: %w", err)
	}
	var links []struct {
		Stats struct{ RX struct{ Packets int } } `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, fmt.Errorf("ip says of the receiver's end %q: %w", out, err)
	}
	return links[0].Stats.RX.Packets, nil
}

// command is one that runs in a namespace. It is killed when ctx ends.
func (n *network) command(ctx context.Context, namespace string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", namespace}, args...)...)
}

// Close removes the namespaces that are there, and with them the pair.
func (n *network) Close() error {
	var errs []error
	for _, name := range []string{n.sender, n.receiver} {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			errs = append(errs, ip("netns", "del", name))
		}
	}
	return errors.Join(errs...)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
