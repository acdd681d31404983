package convert

import (
	"errors"
	"fmt"
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
)

// Merge joins several files. If there are as many server texts as trace texts, they are
// paired in order; everything else is merged by time.
//
// Packets of different files must not share an id by accident, so with n files every n-th
// id belongs to the same file.
func Merge(sources ...*Source) (ItemReader, error) {
	readers, err := pairTexts(sources)
	if err != nil {
		return nil, err
	}
	if len(readers) == 1 {
		return itemsOf(readers[0]), nil
	}
	m := &merged{}
	for i, r := range readers {
		m.inputs = append(m.inputs, mergedInput{reader: itemsOf(r), index: uint64(i)})
	}
	return m, nil
}

// pairTexts combines each trace text and its server text into one reader, which replaces
// the trace text.
func pairTexts(sources []*Source) ([]Reader, error) {
	var traces, servers int
	for _, s := range sources {
		switch s.Reader.(type) {
		case *text.Trace:
			traces++
		case *text.Server:
			servers++
		}
	}
	if traces > 0 && servers > 0 && traces != servers {
		return nil, fmt.Errorf("which server text belongs to which trace text? There are %d and %d", servers, traces)
	}
	if traces == 0 || servers == 0 {
		servers = 0
	}
	var (
		readers []Reader
		waiting []*text.Server
	)
	for _, s := range sources {
		if r, ok := s.Reader.(*text.Server); ok && servers > 0 {
			waiting = append(waiting, r)
		}
	}
	for _, s := range sources {
		switch r := s.Reader.(type) {
		case *text.Trace:
			if servers > 0 {
				readers = append(readers, text.NewPair(r, waiting[0]))
				waiting = waiting[1:]
				continue
			}
		case *text.Server:
			if servers > 0 {
				continue
			}
		}
		readers = append(readers, s.Reader)
	}
	return readers, nil
}

// merged returns the packets of several readers in the order of their times. Other blocks
// do not wait for their turn: each is returned as soon as everything before it in its
// file was, so that no packet precedes the secrets and the names that it needs.
type merged struct {
	inputs []mergedInput
	last   *mergedInput // the one whose item was returned last
}

type mergedInput struct {
	reader ItemReader
	index  uint64
	head   *Item // its next item, nil at the end
	err    error
}

func (i *mergedInput) next() {
	if i.head, i.err = i.reader.NextItem(); i.err != nil {
		i.head = nil
	}
}

// Next returns the earliest of the packets that come next in their files.
func (m *merged) Next() (*capture.Packet, error) {
	for {
		item, err := m.NextItem()
		if err != nil || item.Packet != nil {
			return item.Packet, err
		}
	}
}

// NextItem returns the earliest packet, or a block of another type.
func (m *merged) NextItem() (*Item, error) {
	if m.last != nil {
		m.last.next()
	} else {
		for i := range m.inputs {
			m.inputs[i].next()
		}
	}
	m.last = m.first()
	if m.last == nil {
		m.last = &mergedInput{reader: itemsOf(ended{})}
		return &Item{}, m.end()
	}
	item := m.last.head
	if p := item.Packet; p != nil && p.ID != 0 {
		p.ID = (p.ID-1)*uint64(len(m.inputs)) + m.last.index + 1
	}
	return item, nil
}

// first is the input whose item comes next, nil if all have ended.
func (m *merged) first() (first *mergedInput) {
	for n := range m.inputs {
		i := &m.inputs[n]
		switch {
		case i.head == nil:
		case i.head.Packet == nil:
			return i
		case first == nil || i.head.Packet.Time < first.head.Packet.Time:
			first = i
		}
	}
	return first
}

// ended is a reader that has ended.
type ended struct{}

func (ended) Next() (*capture.Packet, error) { return nil, io.EOF }

// end is io.EOF, or the errors of the files.
func (m *merged) end() error {
	var errs []error
	for _, i := range m.inputs {
		if !errors.Is(i.err, io.EOF) {
			errs = append(errs, i.err)
		}
	}
	if len(errs) == 0 {
		return io.EOF
	}
	return errors.Join(errs...)
}
