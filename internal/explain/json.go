package explain

import (
	"fmt"
	"io"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// WriteJSON writes the findings as one indented JSON object. Characters that a terminal
// would act on are escaped, which changes nothing for a parser.
func (e *Explanation) WriteJSON(w io.Writer) error {
	if err := terminal.WriteJSON(w, e.Report, "  "); err != nil {
		return fmt.Errorf("writing the findings: %w", err)
	}
	return nil
}
