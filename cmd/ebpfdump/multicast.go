package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// usualGroups are multicast groups that services are known by, and the ports where they are.
var usualGroups = []struct {
	port       uint16
	ipv4, ipv6 string
	service    string
}{
	{319, "224.0.1.129", "ff0e::181", "PTP"},
	{320, "224.0.1.129", "ff0e::181", "PTP"},
	{520, "224.0.0.9", "", "RIP"},
	{521, "", "ff02::9", "RIPng"},
	{546, "", "ff02::1:2", "DHCPv6"},
	{547, "", "ff02::1:2", "DHCPv6"},
	{1900, "239.255.255.250", "ff02::c", "SSDP"},
	{3702, "239.255.255.250", "ff02::c", "WS-Discovery"},
	{5353, "224.0.0.251", "ff02::fb", "mDNS"},
	{5355, "224.0.0.252", "ff02::1:3", "LLMNR"},
	{9875, "224.2.127.254", "ff0e::2:7ffe", "SAP"},
}

// multicast checks the flag --join, and chooses what to listen on if -l has no address.
func (f captureFlags) multicast(p *capturePlan) error {
	kind := p.config.Kind
	if len(f.groups) == 0 {
		return nil
	}
	switch {
	case !kind.CanJoin():
		return usagef("--join is for udp and udp6: a %s joins no multicast group", kind.Summary)
	case f.reuseport.sockets > 0:
		return usagef("--join with --reuseport: every socket of the group gets what is sent to a multicast group: choose one")
	case f.probe:
		return usagef("--probe sends to the socket alone: leave --join out")
	}
	for _, text := range f.groups {
		g, err := parseGroup(text, kind)
		if err != nil {
			return err
		}
		p.config.Groups = append(p.config.Groups, g)
	}
	at := &p.config.Listen
	switch first := p.config.Groups[0]; {
	case f.listen == "" || strings.HasPrefix(f.listen, ":"):
		addr := netip.IPv4Unspecified()
		if kind.IPv6() {
			addr = netip.IPv6Unspecified()
		}
		if len(p.config.Groups) == 1 {
			addr = first.Address.WithZone(first.Interface)
		}
		*at = netip.AddrPortFrom(addr, at.Port())
	case at.Addr().IsMulticast():
		for _, g := range p.config.Groups {
			if g.Address != at.Addr().WithZone("") {
				return usagef("--join %v: a socket that is bound to %s gets nothing of other groups: give -l :%d", g, at.Addr(), at.Port())
			}
		}
	case !at.Addr().IsUnspecified():
		return usagef("--join %v: a socket that is bound to %s gets nothing of a group: give -l :%d", first, at.Addr(), at.Port())
	}
	return nil
}

// parseGroup reads GROUP or GROUP@INTERFACE.
func parseGroup(text string, kind *capture.Kind) (g capture.MulticastGroup, err error) {
	example := "224.0.0.251@eth0"
	if kind.IPv6() {
		example = "ff02::fb@eth0"
	}
	address, device, named := strings.Cut(text, "@")
	g.Interface = device
	addr, err := netip.ParseAddr(strings.Trim(address, "[]"))
	if addr.Zone() != "" && !named {
		g.Interface, named = addr.Zone(), true
	}
	g.Address = addr.WithZone("")
	switch {
	case err != nil || named && g.Interface == "":
		return g, usagef("--join %q is not GROUP or GROUP@INTERFACE, such as %s", text, example)
	case !addr.IsMulticast():
		return g, usagef("--join %s: it is no multicast group: those are 224.0.0.0 to 239.255.255.255, and ff00::/8", text)
	case addr.Is4() == kind.IPv6():
		return g, usagef("--join %s does not fit a %s socket: give a group such as %s", text, kind.Name, example)
	case g.Interface == "" && addr.Is6() && (addr.IsLinkLocalMulticast() || addr.IsInterfaceLocalMulticast()):
		return g, usagef("--join %s: it is a group of one link: name an interface with it, such as %s@eth0", text, addr)
	}
	return g, nil
}

// notJoined says that nothing of a multicast group comes although that is probably what the user wants;
// empty if there is nothing to say.
func notJoined(config *capture.Config) string {
	at := config.Listen
	if len(config.Groups) > 0 || !config.Kind.CanJoin() {
		return ""
	}
	const otherwise = "comes only where another program of this machine has joined the group"
	if at.Addr().IsMulticast() {
		return fmt.Sprintf("no multicast group is joined: what is sent to %s %s: --join %[1]s joins it", at.Addr().WithZone(""), otherwise)
	}
	if !at.Addr().IsUnspecified() {
		return ""
	}
	for _, usual := range usualGroups {
		group := usual.ipv4
		if at.Addr().Is6() {
			group = usual.ipv6
		}
		if usual.port == at.Port() && group != "" {
			return fmt.Sprintf("no multicast group is joined: what is sent to %s (%s) %s: --join %[1]s joins it", group, usual.service, otherwise)
		}
	}
	return ""
}

// joined lists the groups, for the message.
func joined(groups []capture.MulticastGroup) (all []string) {
	for _, g := range groups {
		all = append(all, fmt.Sprintf("in multicast group %v", g))
	}
	return all
}
