package survey

import "slices"

// The layer map draws one bar for each socket, from the link header to the payload. These
// are its dimensions, in SVG user units.
const (
	mapLeft       = 118 // of the first bar
	mapHeadHeight = 24
	mapRowHeight  = 30
	mapBarHeight  = 22
)

// mapColumns tells where the segments of each layer begin, and how wide they are.
var mapColumns = map[place][2]int{
	linkPlace:      {mapLeft, 84},
	networkPlace:   {mapLeft + 86, 74},
	transportPlace: {mapLeft + 162, 90},
	messagePlace:   {mapLeft + 254, 108},
}

// mapWidth is the width of the drawing.
const mapWidth = mapLeft + 254 + 108 + 2

// mapRow is a bar of the layer map, or a text in its place.
type mapRow struct {
	Name     string
	Y        int
	Segments []mapSegment
	Words    string
}

// mapSegment is a header or the payload in a bar.
type mapSegment struct {
	X, Width int
	Header   string
	// Seen tells who sees it: both, filter, below (the filter, below offset 0), user or
	// none.
	Seen string
}

// TextY is the baseline of the row's text.
func (r mapRow) TextY() int { return r.Y + mapBarHeight - 7 }

// Middle is the centre of a segment's text.
func (s mapSegment) Middle() int { return s.X + s.Width/2 }

// layerMap is a drawing of some rows.
type layerMap struct {
	Label              string // for those who do not see it
	Rows               []mapRow
	Columns            []mapSegment
	Width, Top, Height int
	BarLeft, BarHeight int
}

func newLayerMap(label string, rows []mapRow) layerMap {
	for i := range rows {
		rows[i].Y = i * mapRowHeight
	}
	return layerMap{
		Label: label, Rows: rows, Columns: mapHeads, Width: mapWidth, Top: -mapHeadHeight, Height: mapHeadHeight + len(rows)*mapRowHeight,
		BarLeft: mapLeft, BarHeight: mapBarHeight,
	}
}

// layerMap draws what the filters of sockets see.
func (r *Report) layerMap() layerMap {
	var rows []mapRow
	for i := range r.Sockets {
		rows = append(rows, r.Sockets[i].mapRow(r.Sockets[i].statusText()))
	}
	return newLayerMap("Which layers the filter and userspace see, for each kind of socket", rows)
}

// mapRow is the row of a socket, with words where it has no packets.
func (s *Socket) mapRow(words string) mapRow {
	row := mapRow{Name: s.Name}
	if len(s.Headers) == 0 {
		row.Words = words
	}
	for _, header := range s.Headers {
		row.Segments = append(row.Segments, s.segment(header))
	}
	return row
}

// layerMap draws what a program at the hook sees of the sockets for which it runs.
func (h *Hook) layerMap() layerMap {
	var rows []mapRow
	for i := range h.Sockets {
		if s := &h.Sockets[i]; s.Status == Filtered {
			rows = append(rows, s.socket().mapRow("no byte of a packet from offset 0 on"))
		}
	}
	return newLayerMap("Which layers a program at "+h.Name+" sees, for each kind of socket", rows)
}

func (s *Socket) segment(header string) mapSegment {
	column := mapColumns[s.segmentPlace(header)]
	return mapSegment{X: column[0], Width: column[1], Header: header, Seen: s.seenBy(header)}
}

// segmentPlace puts a message's own header into the transport column.
func (s *Socket) segmentPlace(header string) place {
	if header == nlmsghdr {
		return transportPlace
	}
	return s.placeOf(header)
}

// seenBy tells who sees a header.
func (s *Socket) seenBy(header string) string {
	at := slices.Index(s.Headers, header)
	filter := s.Offset0 != "" && at >= slices.Index(s.Headers, s.Offset0)
	user := s.Userspace != nil && at >= slices.Index(s.Headers, s.Userspace.From)
	below := s.Below != nil && (header == "Ethernet" && (s.Below.RelativeLink == ReachedBytes || s.Below.LegacyLink == ReachedBytes) ||
		s.placeOf(header) == networkPlace && (s.Below.RelativeNet == ReachedBytes || s.Below.LegacyNet == ReachedBytes))
	switch {
	case filter && user:
		return "both"
	case filter:
		return "filter"
	case below:
		return "below"
	case user:
		return "user"
	}
	return "none"
}
