package capture

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reception is what the last call said of a message. It takes the socket's count of drops, and
// closes the descriptors that came, of which nobody has a use.
func (r *receiver) reception(i int) Reception {
	m := &r.messages[i]
	said := Reception{Flags: uint32(m.header.Flags) &^ echoed}
	if size := len(r.memory); size > 0 {
		said.Buffer, said.HasBuffer = receiveSize, true
	}
	drops := uint32(0) // the socket does not mention 0
	if oob := r.envelope[i].oob[:m.header.Controllen]; len(oob) > 0 {
		r.controls = r.controls[:0]
		rest := eachControl(oob, func(c Control, data []byte) {
			switch {
			case c.Level == unix.SOL_SOCKET && c.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
				drops = binary.NativeEndian.Uint32(data)
				return // only this program asked for it
			case c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_RIGHTS:
				for ; len(data) >= 4; data = data[4:] {
					_ = unix.Close(int(int32(binary.NativeEndian.Uint32(data))))
				}
			}
			if len(r.controls) == ControlsMax {
				said.ControlRest += unix.SizeofCmsghdr + c.Len
				return
			}
			r.controls = append(r.controls, c)
		})
		said.ControlRest += uint32(len(rest))
		said.Controls = r.controls
	}
	r.countDrops(drops)
	return said
}

// eachControl calls take with each control message and its data, and returns what is behind
// the last one that is whole.
func eachControl(oob []byte, take func(c Control, data []byte)) (rest []byte) {
	for len(oob) >= unix.SizeofCmsghdr {
		header := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		n := int(header.Len)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			break
		}
		data := oob[unix.SizeofCmsghdr:n]
		take(Control{Level: header.Level, Type: header.Type, Len: uint32(len(data))}, data)
		oob = oob[min(unix.CmsgSpace(len(data)), len(oob)):]
	}
	return oob
}
