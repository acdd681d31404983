package explain

// item is what is shown one by one: a packet, or what belongs to none that the file has.
type item uint8

const (
	itemPacket item = iota
	itemRead
	itemPeek
	itemSend
	itemCount
)

var itemWords = [itemCount][2]string{{"packet", "packets"}, {"unjoined read", "unjoined reads"}, {"unjoined peek", "unjoined peeks"}, {"send", "sends"}}

func (e *entry) item() item {
	switch {
	case e.sent:
		return itemSend
	case e.first == nil && e.peeked:
		return itemPeek
	case e.first == nil:
		return itemRead
	}
	return itemPacket
}

// tally counts items.
type tally [itemCount]uint64

func (t *tally) total() (n uint64) {
	for _, of := range t {
		n += of
	}
	return n
}

// String is such as "2 packets, 1 unjoined read and 3 sends".
func (t *tally) String() string {
	var words []string
	for i, n := range t {
		if n > 0 {
			words = append(words, quantity(n, itemWords[i][0], itemWords[i][1]))
		}
	}
	return list(words)
}
