package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// conversion is one run of convert.
type conversion struct {
	app     *app
	plan    convertPlan
	inputs  []*convertInput
	sources []*convert.Source
	out     convertOutput
}

// convertInput is a file being read.
type convertInput struct {
	app    *app
	name   string
	file   *os.File
	size   int64 // of a regular file, 0 for others
	bytes  atomic.Int64
	doubts atomic.Uint64
	show   func(line string)
}

// Read reads and counts the bytes.
func (in *convertInput) Read(b []byte) (int, error) {
	n, err := in.file.Read(b)
	in.bytes.Add(int64(n))
	return n, err
}

// shownDoubts is how many doubtful lines of a file are shown. Further ones are only
// counted.
const shownDoubts = 10

func (in *convertInput) doubt(err *convert.InputError) {
	switch n := in.doubts.Add(1); {
	case n <= shownDoubts:
		in.show(fmt.Sprintf("ebpfdump: %v", err))
	case n == shownDoubts+1:
		in.show(fmt.Sprintf("ebpfdump: %s: more doubtful lines are only counted", in.name))
	}
}

func (c *conversion) close() {
	for _, in := range c.inputs {
		if in.file != os.Stdin {
			in.file.Close()
		}
	}
}

const (
	// outputInterval is how long packets may be buffered.
	outputInterval = time.Second
	// progressAfter is how long a conversion runs before it gets a progress bar.
	progressAfter    = 500 * time.Millisecond
	progressInterval = 100 * time.Millisecond
)

// report flushes the output regularly, and shows the progress.
func (c *conversion) report() (stop func()) {
	var mu sync.Mutex
	bar := c.newBar()
	shown := false
	for _, in := range c.inputs {
		in.show = func(line string) {
			mu.Lock()
			defer mu.Unlock()
			if shown {
				_ = bar.Clear()
			}
			c.app.stderr.Line("%s", line)
		}
	}
	ended := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		flush := time.NewTicker(outputInterval)
		defer flush.Stop()
		var tick <-chan time.Time
		if c.app.stderrTerminal && !c.plan.quiet && !(c.plan.output == "-" && c.app.stdoutTerminal) {
			ticker := time.NewTicker(progressInterval)
			defer ticker.Stop()
			tick = ticker.C
		}
		began := time.Now()
		for {
			select {
			case <-ended:
				return
			case <-flush.C:
				_ = c.out.Flush() // the next write returns the same error
			case <-tick:
				if time.Since(began) < progressAfter {
					continue
				}
				mu.Lock()
				shown = true
				_ = bar.Set64(c.bytesRead())
				_ = bar.RenderBlank() // a bar without a known end does not show all that is set
				mu.Unlock()
			}
		}
	})
	return func() {
		close(ended)
		done.Wait()
		if shown {
			_ = bar.Clear()
		}
	}
}

// newBar makes a progress bar with the rate and, if all inputs are files, the remaining
// time.
func (c *conversion) newBar() *progressbar.ProgressBar {
	total := int64(0)
	for _, in := range c.inputs {
		if in.size == 0 {
			total = -1
			break
		}
		total += in.size
	}
	const wide, width, narrow = 80, 20, 6
	options := []progressbar.Option{progressbar.OptionSetDescription("converting"), progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(width)}
	if columns := c.app.stderr.Columns(); columns > 0 && columns < wide {
		// One that is wider than the terminal would be drawn line below line.
		options = []progressbar.Option{progressbar.OptionSetPredictTime(false), progressbar.OptionSetWidth(narrow)}
	}
	bar := progressbar.NewOptions64(total, append(options,
		progressbar.OptionSetWriter(c.app.stderr.Raw()),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(),
		// Otherwise a goroutine of the bar's own draws it, whether it is to be seen or not.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)...)
	bar.Reset() // it measures the time from here on
	return bar
}

func (c *conversion) bytesRead() int64 {
	n := int64(0)
	for _, in := range c.inputs {
		n += in.bytes.Load()
	}
	return n
}

// closingLines says what was converted, and what was not.
func (c *conversion) closingLines() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	printf := c.app.stderr.Line
	for _, in := range c.inputs {
		if n := in.doubts.Load(); n > 0 {
			printf("%s: %s skipped", in.name, counted(n, "doubtful line"))
		}
	}
	for _, s := range c.sources {
		c.app.noteCutOff(s)
	}
	c.app.leftOut(&c.out.selection)
	var roomless []string
	all := c.out.file.LeftOut()
	for _, left := range all {
		if left.Expected {
			roomless = append(roomless, left.What())
		}
	}
	if len(roomless) > 1 && !c.plan.quiet {
		printf("left out, since %s has no room for it: %s", c.plan.to.Name, strings.Join(roomless, "; "))
	}
	for _, left := range all {
		if !left.Expected || len(roomless) == 1 && !c.plan.quiet {
			printf("%v", left)
		}
	}
	if c.plan.quiet {
		return
	}
	total := uint64(0)
	for _, n := range c.out.counts {
		total += n.packets
	}
	if c.out.file.Failure() != nil {
		printf("%s written of %d converted: the output has failed", counted(written(c.out.file), "packet"), total)
	} else {
		printf("%s converted", counted(total, "packet"))
	}
	for _, n := range c.out.counts {
		printf("%s: %s", interfaceName(n.iface), counted(n.packets, "packet"))
	}
}

// leftOut says for which packets the output's form has no room.
func (a *app) leftOut(s *convert.Selection) {
	foreign := false
	for _, left := range s.LeftOut() {
		a.stderr.Line("%s of %s left out: %s %s",
			counted(left.Packets, "packet"), interfaceName(left.Interface), s.Format.Name, leftOutReasons[left.Reason])
		foreign = foreign || left.Reason == convert.ReasonLinkType && left.Interface.View == 0
	}
	if foreign && len(s.Sources) > 0 {
		a.stderr.Line("--interface chooses the interface: there are %s", listedInterfaces(s.Sources...))
	}
}

// leftOutReasons say what is the matter with a format, behind its name.
var leftOutReasons = map[convert.Reason]string{
	convert.ReasonView:        "has room for one view, choose it with --view",
	convert.ReasonLinkType:    "has room for one link type",
	convert.ReasonNoBytes:     "has no packets for calls that failed or moved no bytes",
	convert.ReasonNotReceived: "is for what was received",
}

func interfaceName(i *capture.Interface) string {
	if name := i.Name(); name != "" {
		return name
	}
	return "interface without a name"
}

// counted is a number with its noun.
func counted(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
