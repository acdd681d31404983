package terminal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// WriteJSON writes v as JSON in which everything is escaped that a terminal would act on;
// it means the same to a parser. indent is that of json.Encoder; if it is empty, the
// value is one line.
func WriteJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	safe := make([]byte, 0, b.Len())
	for _, r := range b.String() {
		if r == '\n' { // between values: within a string it is escaped
			safe = append(safe, '\n')
			continue
		}
		safe = AppendJSONRune(safe, r)
	}
	_, err := w.Write(safe)
	return err
}

// AppendJSONRune appends a character of a JSON text, escaped unless it is printable.
// Quotes and backslashes are unchanged.
func AppendJSONRune(to []byte, r rune) []byte {
	switch {
	case unicode.IsPrint(r):
		return utf8.AppendRune(to, r)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return fmt.Appendf(to, `\u%04x\u%04x`, high, low)
	}
	return append(to, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}
