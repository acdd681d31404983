package convert

// secretsTLS is the type of a key log as NSS, OpenSSL and others write it.
const secretsTLS = 0x544c534b

// WriteTLSKeys writes lines of a TLS key log (the format of SSLKEYLOGFILE), with which readers
// decrypt the packets that follow. Whoever has the file can do so.
func (w *Writer) WriteTLSKeys(log []byte) error {
	b := make([]byte, 0, len(log)+24)
	b = beginBlock(b, blockSecrets)
	b = order.AppendUint32(order.AppendUint32(b, secretsTLS), uint32(len(log)))
	b = pad(append(b, log...), len(log))
	return w.out.block(endBlock(b, 0))
}

// WriteTLSKeys writes lines of a TLS key log, into a form that has room for them: others get none.
func (f *File) WriteTLSKeys(log []byte) error {
	w, ok := f.copier.PacketWriter.(interface{ WriteTLSKeys(log []byte) error })
	if !ok {
		return nil
	}
	return w.WriteTLSKeys(log)
}

// WriteTLSKeys writes lines of a TLS key log. Later files begin with all of them.
func (s *Series) WriteTLSKeys(log []byte) error {
	s.keys = append(s.keys, log...)
	if s.file == nil {
		return nil
	}
	return s.file.WriteTLSKeys(log)
}
