package explain

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sayings are the files that have the sentences.
var sayings = []string{"findings.go", "sent.go", "cgroup.go", "ownfilter.go", "settle.go", "far.go", "rows.go", "shown.go", "text.go", "page.go", "layermap.go", "calls.go", "selection.go", "wire.go", "connections.go"}

// sentences has every sentence of an explanation as it is in the code, and the scenes in
// which it is true. In all others it must not be said. A list that begins with "all but"
// names those in which it is not true.
var sentences = map[string]string{
	"The file has no kernel view of this socket.":                                                               "net only, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back",
	"The kernel view has no packets.":                                                                           "never filtered, no packets",
	" A socket of this kind takes a filter and never runs it.":                                                  "never filtered",
	"Not all packets of the kernel view begin with the same layer.":                                             "mixed",
	"The kernel view begins with the link header: the filter gets whole frames.":                                "copies dropped, frames, padding, none followed, not followed",
	"The kernel view begins with the IP header. There is no link header at offset 0.":                           "raw",
	"The kernel view begins with the transport header":                                                          "all but copies dropped, frames, messages, mixed, net only, never filtered, no packets, padding, raw, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back, none followed, not followed",
	": there is no link and no IP header at offset 0.":                                                          "all but copies dropped, frames, messages, mixed, net only, never filtered, no packets, padding, raw, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back, none followed, not followed",
	"The kernel view begins with the message itself: there is no link, IP or transport header before it.":       "messages",
	", and so are its addresses.":                                                                               "printed",
	" The IP header that the file has before it is synthetic":                                                   "all but copies dropped, frames, messages, mixed, net only, never filtered, no packets, not ours, not ours alone, padding, raw, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back, none followed, not followed",
	" The IP header that the file has before %s of %s is synthetic.":                                            "not ours",
	"the %s view has other bytes than the kernel view in %s":                                                    "views",
	"%s of the %s view %s left out, not being as ebpfdump writes %s":                                            "not ours, not ours alone",
	"the %s view begins %s bytes before offset 0":                                                               "views, both directions, on the wire, wire and losses, stopped for a reason",
	"the %s view begins %s bytes behind offset 0":                                                               "frames",
	"the %s view begins at offset 0 as well":                                                                    "frames, chosen",
	"The kernel view has received packets only (":                                                               "all but copies dropped, messages, net only, never filtered, no packets, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back",
	" On its way out a packet does not pass the filter.":                                                        "all but copies dropped, frames, messages, mixed, net only, never filtered, no packets, padding, raw, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back, none followed, not followed",
	"The packets of the kernel view have no direction.":                                                         "messages",
	"The kernel view has %s that came in and %s that went out":                                                  "copies dropped",
	", and %s without a direction":                                                                              "copies dropped",
	"The id of %s is that of another one as well (%s), so it is not sure which packets the reads belong to. ":   "same stream twice, same ids",
	"Captures that ebpfdump convert puts together keep their ids apart.":                                        "same stream twice, same ids",
	": the kernel's reason stands with drop":                                                                    "all stopped for a reason",
	": the kernel's reason for %s stands with drop; otherwise":                                                  "stopped for a reason",
	" a firewall stops packets on that way, a wrong checksum, or the end of the connection":                     "on the wire, wire and losses, stopped for a reason",
	" %s %s on the wire and never came to the filter (%s)":                                                      "on the wire, wire and losses, all stopped for a reason, stopped for a reason",
	" Sent, and not on an interface as the hook saw %s: %s.":                                                    "on the wire, held back",
	" What is dropped behind the hook is not there, and what is cut up is there in pieces.":                     "on the wire",
	" The kernel dropped %s, and its reason stands with drop.":                                                  "held back",
	"A filter on a SOCK_RAW socket sees every packet from the IP header on, and userspace gets the same bytes.": "raw",
	"A filter on a SOCK_STREAM socket sees every segment from the TCP header on, also of the handshake and of ACKs, and userspace gets the stream alone.": "before the tap, both directions, client, conversation, cut off, broken off, damaged, ends, half a ledger, kernel only, on the wire, request at once, same stream twice, selected, small buffers, splice, views",
	"A filter on a SOCK_DGRAM socket sees every datagram from the UDP header on, and userspace gets the payload alone.":                                   "all stopped for a reason, before its packet, chosen, dropped, filters, forgotten, kernel only, long, lost, merged, no room, not ours, not ours alone, nothing dropped, nothing read, other bytes, own filter, peeks, printed, queue, reception, same ids, small buffers, snaplen, stopped for a reason, verdicts, wire and losses, crowd, capture filter, left filter, afar, all afar",
	" sent something":                                      "one send, sends, ping",
	"never at the filter: ":                                "on the wire, stopped for a reason, wire and losses",
	"joined to no read: ":                                  "forgotten, long, nothing read, peeks, queue, views, afar, all afar",
	"Not shown one by one: %s with %s":                     "crowd",
	", of which %s %s dropped or never came to the filter": "crowd",
	" --connections N shows N of them, 0 all.":             "crowd",
	", further connections":                                "crowd",
	", without addresses":                                  "copies dropped",
	"; from +%s on":                                        "all but no packets, not ours alone, nothing sent, printed",
	" Several captures are in the file: %s %s the id of another one (%s), which has other addresses.":  "merged",
	"the program that chooses a socket had the kernel drop it":                                         "chosen",
	"a program chose a socket for it, and the file does not tell what came of that":                    "chosen alone",
	"a program chose a socket for it, and the filter of none saw it":                                   "chosen",
	"A program chose among %d sockets":                                                                 "chosen, chosen alone",
	"It left to the kernel's hash: ":                                                                   "chosen",
	"It asked for a socket that there is not, so that the kernel's hash took one: ":                    "chosen alone",
	"It had the kernel drop: ":                                                                         "chosen",
	"Which socket it chose is not known: ":                                                             "chosen",
	"The file has no user view: it does not tell what userspace got.":                                  "frames, kernel only, mixed, not ours, not ours alone, nothing sent, one send, sends, chosen alone, crowd",
	"No read of the file took bytes: userspace only peeked, in %s.":                                    "peeks",
	"No read of the file has bytes.":                                                                   "copies dropped, no packets, nothing read",
	"The views differ: %s of %s %s other bytes than the %s (beginning in %s).":                         "other bytes",
	"There is nothing to compare the %s of %s with.":                                                   "never filtered, user only",
	"Nothing could be compared: of no read does the file have the bytes of both sides (%s).":           "splice",
	"All that userspace got is in the %s: %s in %s%s.":                                                 "all but same stream twice, before the tap, copies dropped, forgotten, frames, kernel only, lost, mixed, never filtered, no packets, not ours, not ours alone, nothing read, other bytes, peeks, snaplen, splice, user only, nothing sent, one send, sends, chosen alone, crowd, afar, all afar, none followed",
	"What could be compared is the same in both views: %s of %s%s.":                                    "same stream twice, before the tap, forgotten, lost, snaplen, afar",
	" Of %s only a part could be.":                                                                     "before the tap, snaplen",
	" Of %s it is not sure which packets to compare with.":                                             "same stream twice",
	" Of %s the file has no bytes to compare with.":                                                    "before the tap, lost",
	", from the first byte of a packet on":                                                             "messages, raw, ping, not followed",
	", behind %s %s of headers":                                                                        "all but copies dropped, frames, kernel only, messages, mixed, never filtered, no packets, not ours, not ours alone, nothing read, other bytes, peeks, raw, splice, user only, nothing sent, one send, sends, chosen alone, crowd, all afar, ping, none followed, not followed",
	"ACKs without payload":                                                                             "client, conversation, damaged, cut off, broken off, ends, half a ledger, request at once, both directions, hooks only, on the wire",
	"the headers of what it got, %s %s each (%s)":                                                      "all but same stream twice, copies dropped, frames, kernel only, messages, mixed, never filtered, no packets, not ours, not ours alone, nothing read, other bytes, peeks, raw, same ids, user only, nothing sent, one send, sends, chosen alone, crowd, all afar, ping, none followed, not followed",
	"payload that came again":                                                                          "ends",
	"the reset, of which it only got an error or the end of the stream":                                "ends",
	"the reset, with which no read ended":                                                              "ends",
	"the FIN, of which it only got that the stream has ended":                                          "conversation, damaged, cut off, broken off, half a ledger, both directions",
	"the FIN, with which no read ended":                                                                "client, ends",
	"Userspace never saw ":                                                                             "all but same stream twice, copies dropped, frames, kernel only, messages, mixed, never filtered, no packets, not ours, not ours alone, nothing read, other bytes, peeks, raw, same ids, user only, nothing sent, one send, sends, chosen alone, crowd, all afar, ping, none followed, not followed",
	"Userspace got the packets as the filter saw them.":                                                "messages, raw, ping",
	"dropped by the filter, whose verdict was 0":                                                       "copies dropped, kernel only, verdicts, own filter, filters, dropped, crowd, none followed, not followed",
	"truncated by the filter, by %s in all":                                                            "verdicts",
	"dropped by the receive queue, which was full":                                                     "queue",
	"passed over: later ones are joined to reads, and the file does not say why ":                      "forgotten, queue",
	"cut by a buffer that was too small, by %s in all":                                                 "reception",
	"%s had no room for the whole message":                                                             "reception",
	"%s got several datagrams at once (UDP_GRO), at most %s":                                           "reception",
	"ancillary data came with reads: ":                                                                 "reception",
	"%s came with messages (SCM_RIGHTS)":                                                               "reception",
	"the ancillary data of %s was cut (MSG_CTRUNC)":                                                    "reception",
	"the errors of reads were ":                                                                        "ends, reception",
	" into a buffer of ":                                                                               "reception",
	"more ancillary data":                                                                              "reception",
	"read in part, without %s":                                                                         "long, no room, small buffers",
	"joined to no read up to the end of the file":                                                      "long, nothing read, peeks, queue, views, afar, all afar",
	"Not read from this socket as far as the file tells, or not whole: ":                               "copies dropped, forgotten, kernel only, long, no room, nothing read, peeks, queue, small buffers, verdicts, views, reception, own filter, filters, dropped, crowd, afar, all afar, none followed, not followed",
	" What this socket gets are copies: the packets themselves went on.":                               "copies dropped, none followed, not followed",
	"All payload reached userspace.":                                                                   "before its packet, before the tap, client, conversation, damaged, cut off, broken off, ends, half a ledger, messages, net only, padding, printed, raw, request at once, selected, snaplen, splice, hooks only, wire alone, nothing dropped, merged, held back, capture filter, left filter, ping",
	" The capture lost %s of what calls returned.":                                                     "lost",
	" The receive queue dropped, or the capture lost of what calls returned: %s.":                      "lost",
	" The receive queue counted %s that it dropped.":                                                   "queue",
	" Whose packets are forgotten, since more lies between than is kept: %s.":                          "forgotten",
	" So it is not known which of %s (%s) were read.":                                                  "forgotten",
	"read or not, which is not known: ":                                                                "forgotten",
	" Of %s the packets lie too far back in the file to be compared.":                                  "forgotten, afar, all afar",
	"Nothing could be compared.":                                                                       "all afar",
	"got one whole packet":                                                                             "all but same stream twice, copies dropped, frames, kernel only, long, mixed, never filtered, no packets, not ours, not ours alone, nothing read, other bytes, peeks, same ids, selected, small buffers, user only, verdicts, nothing sent, one send, sends, chosen alone, crowd, none followed",
	"got one whole packet each":                                                                        "before its packet, own filter, filters, merged, afar, messages",
	"got several packets at once, at most ":                                                            "conversation, damaged, cut off, broken off, half a ledger, selected, both directions",
	"got a part of one packet":                                                                         "conversation, damaged, cut off, broken off, half a ledger, long, selected, small buffers, verdicts, reception, both directions, no room",
	"got the end of a stream":                                                                          "conversation, damaged, cut off, broken off, half a ledger, both directions",
	"got an error":                                                                                     "ends, reception",
	"got bytes that came before the tap":                                                               "before the tap",
	"looked at bytes and left them in the queue (MSG_PEEK)":                                            "peeks",
	" %s fed several reads, at most %s.":                                                               "conversation, damaged, cut off, broken off, half a ledger, selected, small buffers, both directions",
	"Not both views have real times, so there is no latency to tell.":                                  "printed",
	"From the filter to the return of the read: ":                                                      "all but same stream twice, copies dropped, frames, kernel only, mixed, never filtered, no packets, not ours, not ours alone, nothing read, peeks, printed, same ids, user only, nothing sent, one send, sends, chosen alone, crowd, none followed",
	"From the filter to the return of the read: median %s, 99th percentile %s, from %s to %s (%s).":    "before its packet, conversation, damaged, cut off, broken off, ends, half a ledger, messages, selected, small buffers, reception, both directions, own filter, filters, merged, afar",
	" %s came before %s and %s not counted.":                                                           "before its packet, no room",
	"The tap lost %s.":                                                                                 "kernel only",
	"The tap lost %s: what userspace got of %s cannot be compared.":                                    "lost, wire and losses",
	"The file has no statistics at its end, so losses of the tap after its last packet are not known.": "all but conversation, damaged, half a ledger, kernel only, lost, net only, no packets, printed, raw, selected, user only, nothing sent, one send, sends, both directions, hooks only, wire alone, wire and losses, dropped on its way out, chosen alone, held back, capture filter",
	"The file has statistics of only %s of its %s, so losses of the tap are not known.":                "half a ledger, kernel only",
	"The tap lost nothing; of the %s that it recorded the file has %s.":                                "selected",
	"The filter saw no packet.":                                                                        "no packets",
	"The tap lost nothing: what the filter saw is all in the file (%s).":                               "conversation, damaged, raw, both directions",
	"The tap lost nothing: of %s that the filter saw %s %s in the file, and the capture filter has left out the rest.": "capture filter",
	" Not in the file whole: %s of the kernel view.":                                                                   "long, snaplen",
	"no read of the file is joined to it":                                                                              "client, ends, forgotten, long, nothing read, peeks, queue, views",
	"userspace peeked at it, and ":                                                                                     "peeks",
	"no packet of the file is joined to it":                                                                            "same stream twice, before the tap, lost, never filtered, user only, reception",
	"the filter kept it from this socket: its verdict was 0":                                                           "copies dropped, kernel only, verdicts, own filter, filters, dropped, none followed, not followed",
	"userspace gets a message without bytes":                                                                           "messages",
	"the receive queue was full and dropped it":                                                                        "queue",
	", but to later ones; the file does not say why":                                                                   "queue",
	"userspace gets other bytes":                                                                                       "other bytes",
	"the %s view has %s, userspace gets all of them":                                                                   "messages, raw, ping, not followed",
	"the %s view has %s, userspace gets the last %s":                                                                   "before its packet, before the tap, client, conversation, damaged, cut off, broken off, ends, half a ledger, lost, net only, no room, printed, queue, request at once, selected, small buffers, snaplen, splice, views, reception, both directions, hooks only, own filter, filters, on the wire, wire alone, wire and losses, dropped, dropped on its way out, nothing dropped, chosen, merged, all stopped for a reason, stopped for a reason, held back, capture filter, left filter, afar",
	"the %s view has %s, of which userspace gets %s":                                                                   "padding",
	"the filter keeps %s of %s, userspace gets %s":                                                                     "verdicts",
	"userspace gets only %s of %s":                                                                                     "long, no room, small buffers, reception",
	"its payload was there before: userspace sees nothing of it":                                                       "same stream twice, ends",
	"part of the handshake: userspace sees nothing of it":                                                              "client, conversation, damaged, cut off, broken off, half a ledger, kernel only, request at once, selected, both directions",
	"the end of the stream":                                                                                            "client, conversation, damaged, cut off, broken off, ends, half a ledger, both directions",
	": userspace gets an error, and no bytes":                                                                          "ends",
	": userspace gets 0 bytes, which says that the stream has ended":                                                   "conversation, damaged, cut off, broken off, half a ledger, both directions",
	"an ACK without payload: userspace sees nothing of it":                                                             "client, conversation, damaged, cut off, broken off, ends, half a ledger, kernel only, request at once, both directions",
	", not in the file":                                                                                                "long",
	", %s of them not in the file":                                                                                     "snaplen",
	"; in no read":                                                                                                     "long",
	"; %s of them read":                                                                                                "long",
	"packet without an id":                                                                                             "mixed",
	", %s of them from here":                                                                                           "before the tap, conversation, damaged, cut off, broken off, half a ledger, selected, both directions",
	"the bytes of the ":                                                                                                "views",
	" view are others":                                                                                                 "views",
	"the file does not tell what userspace got of it":                                                                  "kernel only, mixed, not ours, crowd, none followed, not followed",
	"its read is too far behind it in the file to be followed":                                                         "forgotten",
	"other packets have its id, so it is not sure whose reads these are":                                               "same stream twice, same ids",
	"other packets have its id, so it is not sure whether a read got it":                                               "same ids",
	" --packets N shows N of them, 0 all.":                                                                             "forgotten, frames, one send, sends, crowd, afar, all afar",
	"Not shown one by one: %s.":                                                                                        "frames, one send, crowd, all afar",
	"Left out here: %s more.":                                                                                          "forgotten, sends, crowd, afar",
	"The file is damaged, and this is about the part before that: ":                                                    "damaged",
	"The file ends in the middle of a block, of which it has %s. What follows is about the part before that.": "cut off",
	"The compressed stream of the file breaks off. What follows is about the part before that.":               "broken off",
	"Nothing was sent.":               "nothing sent",
	"What went out are %s in %s (%s)": "one send, sends, ping",
	"What processes read from such sockets is not followed: the file does not tell what userspace got.": "none followed",
	" Reads of some processes are not followed here, so it is not known whether they got %s.":           "not followed",
	", with the headers that the process made itself":                                                   "ping",
	" behind all headers":                         "ping",
	" Of %s the file has only the number.":        "sends",
	" Sending failed in %s. The first error was ": "nothing sent, sends",
	" The capture lost %s of what was sent.":      "sends",
	"send %d: %s took %s":                         "sends, ping",
	"what was handed to the kernel to be sent":    "nothing sent, sends, ping",
	"call that sent":                              "one send, ping",
	"calls that sent":                             "nothing sent, sends",
	"no packet in it":                             "no packets",
	"what userspace gets":                         "all but frames, kernel only, mixed, no packets, not ours, not ours alone, nothing sent, one send, sends, chosen alone, crowd, none followed",
	"Numbers before the bytes count from the first byte of the view.":                          "net only, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back",
	"Numbers before the bytes count from offset 0 of the packet that the socket filter gets":   "all but net only, user only, nothing sent, one send, sends, hooks only, wire alone, dropped on its way out, chosen alone, held back",
	"what is before that, with a negative number, it reaches with bpf_skb_load_bytes_relative": "views, both directions, on the wire, wire and losses, stopped for a reason",
	", written by ":                                                     "all but user only",
	"Not views of a socket, and left out: ":                             "not ours",
	"packet of the kernel view":                                         "before the tap, frames, long, lost, not ours, not ours alone, nothing read, other bytes, padding, peeks, printed, raw, small buffers, snaplen, splice, on the wire, wire and losses, nothing dropped, chosen, all stopped for a reason, stopped for a reason, capture filter, left filter, ping",
	"packets of the kernel view":                                        "all but before the tap, frames, lost, net only, not ours alone, nothing read, other bytes, padding, peeks, printed, raw, snaplen, splice, user only, nothing sent, one send, sends, hooks only, on the wire, wire alone, wire and losses, dropped on its way out, nothing dropped, chosen, all stopped for a reason, chosen alone, stopped for a reason, held back, capture filter, left filter, ping",
	"read by userspace":                                                 "client, long, net only, never filtered, other bytes, padding, printed, queue, raw, request at once, small buffers, snaplen, splice, user only, verdicts, views, hooks only, on the wire, wire alone, wire and losses, dropped, dropped on its way out, nothing dropped, chosen, all stopped for a reason, stopped for a reason, held back, capture filter, left filter, all afar, ping, not followed",
	"reads by userspace":                                                "same stream twice, before its packet, before the tap, conversation, damaged, copies dropped, cut off, broken off, ends, forgotten, half a ledger, lost, messages, no packets, no room, nothing read, peeks, same ids, selected, small buffers, reception, both directions, own filter, filters, merged, afar",
	"byte it got":                                                       "no room, all afar",
	"bytes it got":                                                      "all but frames, kernel only, mixed, no room, not ours, not ours alone, nothing sent, one send, sends, chosen alone, crowd, all afar, none followed",
	"from filter to read, median":                                       "all but same stream twice, copies dropped, frames, kernel only, mixed, never filtered, no packets, not ours, not ours alone, nothing read, peeks, printed, same ids, user only, nothing sent, one send, sends, chosen alone, crowd, none followed",
	"the socket sent it: none of its filters sees that":                 "both directions, hooks only, on the wire, wire alone, ping",
	"The cgroup hooks saw %s come in and %s go out.":                    "both directions, hooks only, on the wire, dropped on its way out, held back, ping",
	" Not in the kernel view, although the hook saw %s come: %s.":       "both directions",
	" The capture lost %s of what the hooks saw.":                       "both directions",
	"the cgroup hook saw it come, and the kernel view does not have it": "both directions",
	"; in packets that were sent, from their IP header on":              "both directions, on the wire, ping",
	"The socket has a filter of its own: %s. ":                          "own filter",
	"The socket has a filter: %s. ":                                     "left filter",
	"For %s (%d dropped, %d truncated): %s. ":                           "filters",
	"Not all packets met the same filter. ":                             "filters",
	"For %s: further ones. ":                                            "filters",
	"For %s: none. ":                                                    "filters, filters",
	"What is said of %s is its answer when it was asked afterwards. ":   "own filter",
	"It could not be asked about %s. ":                                  "own filter",
	"Of %s userspace got something else than it answered (%s): it has state, or depends on something that has changed.": "own filter, filters",
	"a reason that is not in the file":                         "dropped",
	"the socket sent it, and the kernel dropped it: ":          "dropped on its way out, held back",
	"the kernel dropped it, and no other view has it: ":        "dropped",
	"the kernel dropped it: ":                                  "dropped, dropped on its way out, held back",
	"dropped by the kernel, which says why":                    "dropped",
	"Nothing was dropped by the kernel.":                       "nothing dropped",
	"The kernel dropped %s: ":                                  "dropped, dropped on its way out, all stopped for a reason, stopped for a reason, held back",
	" No other view has %s.":                                   "dropped, dropped on its way out",
	" The capture lost %s of what the kernel dropped.":         "dropped",
	"On the wire%s were %s that came in and %s that went out.": "on the wire, wire and losses, wire alone, all stopped for a reason, stopped for a reason, held back",
	" From there to the filter: median %s, at most %s.":        "on the wire, wire and losses",
	"; or the capture has lost what the filter saw":            "wire and losses",
	" About packets of the socket there was ICMP in %s.":       "on the wire",
	" Pieces of what sockets get whole: %s.":                   "on the wire",
	" The capture lost %s of what was on the wire.":            "wire and losses",
	"an ICMP message about a packet of the socket":             "on the wire",
	"a piece of a packet, which sockets get whole":             "on the wire",
	"it was on the wire and never came to the filter":          "on the wire, wire and losses, all stopped for a reason, stopped for a reason",
	"it was on the wire just before the capture ended":         "on the wire",
}

var verb = regexp.MustCompile(`%[sdq]`)

// pattern matches a sentence as it is printed.
func pattern(sentence string) *regexp.Regexp {
	parts := verb.Split(strings.TrimSpace(sentence), -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	all := strings.Join(parts, `[^:;]*?`)
	if first := sentence[:1]; strings.ToUpper(first) != first {
		all = "(?i:" + regexp.QuoteMeta(first) + ")" + strings.TrimPrefix(all, regexp.QuoteMeta(first))
	}
	return regexp.MustCompile(all)
}

// saidIn is the text of an explanation, plain and as a page, without line breaks.
func saidIn(t testing.TB, e *Explanation) string {
	t.Helper()
	page := regexp.MustCompile(`(?s)<style>.*</style>|<[^>]*>`).ReplaceAllString(pageOf(t, e), " ")
	return strings.Join(strings.Fields(text(t, e, false)+" \n"+page), " ")
}

func TestSentences(t *testing.T) {
	t.Parallel()
	said := make(map[string]string)
	for name, scene := range scenes {
		said[name] = saidIn(t, scene(t))
	}
	names := slices.Sorted(maps.Keys(scenes))
	for sentence, where := range sentences {
		list, except := strings.CutPrefix(where, "all but ")
		truth := strings.Split(list, ", ")
		for _, name := range truth {
			if scenes[name] == nil {
				t.Errorf("%q: there is no scene %q", sentence, name)
			}
		}
		for _, name := range names {
			is := slices.Contains(truth, name) != except
			if got := pattern(sentence).MatchString(said[name]); got != is {
				t.Errorf("%s: %q is true: %v, is said: %v", name, sentence, is, got)
			}
		}
	}
	for _, literal := range literals(t, sayings...) {
		if _, ok := sentences[literal]; !ok {
			t.Errorf("%q may be said, and no scene is named in which it is untrue", literal)
		}
	}
	for _, name := range names {
		if found := regexp.MustCompile(`.{0,20}\b(1 (packets|reads|bytes|calls|records|others|are|have)|0 of 0)\b.{0,20}`).FindString(said[name]); found != "" {
			t.Errorf("%s: %q", name, found)
		}
	}
}

// literals are the strings of three words or more in the code.
func literals(t *testing.T, files ...string) (all []string) {
	t.Helper()
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			s, err := strconv.Unquote(l.Value)
			if err != nil {
				t.Fatal(err)
			}
			// Layouts of times, errors and formats without words are not sentences.
			words := strings.Fields(verb.ReplaceAllString(s, ""))
			if len(words) > 2 && !strings.HasPrefix(s, "writing ") && !strings.HasPrefix(s, "2006-") {
				all = append(all, s)
			}
			return true
		})
	}
	return all
}

// The numbers are checked as well: without a user view, nothing counts as undelivered
// except what the filter dropped.
func TestNumbersWithoutUserView(t *testing.T) {
	t.Parallel()
	for name, scene := range scenes {
		e := scene(t)
		for _, s := range e.Report.Sockets {
			if s.view("user") != nil {
				continue
			}
			var b strings.Builder
			if err := json.NewEncoder(&b).Encode([]any{s.Delivered, s.Undelivered.ByQueue, s.Undelivered.PassedOver, s.Undelivered.AtEnd, s.Undelivered.NotKnown, s.Undelivered.Trimmed, s.Undelivered.ByBuffer, s.Undelivered.InPart, s.Calls, s.Comparison, s.Mapping, s.Latency}); err != nil {
				t.Fatal(err)
			}
			if regexp.MustCompile(`[1-9]`).MatchString(b.String()) {
				t.Errorf("%s: %s", name, b.String())
			}
		}
	}
}
