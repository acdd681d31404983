package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// seriesFlags are the flags about several files and about compression, as tcpdump and dumpcap have
// them.
type seriesFlags struct {
	size, seconds  string   // -C, -G
	files          int      // -W
	switches, ends []string // -b, -a
	compress       string
}

// seriesPlan is the interpretation of the flags.
type seriesPlan struct {
	convert.SeriesLimits
	kept        int // files that stay, the newest ones; 0 is all
	compression *convert.Compression
	several     bool // or one that is limited
}

func (f *seriesFlags) register(flags *pflag.FlagSet) {
	flags.StringVarP(&f.size, "file-size", "C", "", "begin a new file after `SIZE`; a bare number is millions of bytes")
	flags.StringVarP(&f.seconds, "rotate", "G", "", "begin a new file after `SECONDS`, or a time such as 1h; -o may have %Y%m%d%H%M%S and the like in it")
	flags.IntVarP(&f.files, "files", "W", 0, "with -C keep the newest `N` files; with -G alone end after N")
	flags.StringArrayVarP(&f.switches, "ring-buffer", "b", nil, "begin a new file, and keep so many: `WHAT` is duration:SECONDS, interval:SECONDS, filesize:KB, packets:N (of the kernel view, as -c, or of the first one of --view without it) or files:N, as for dumpcap")
	flags.StringArrayVarP(&f.ends, "autostop", "a", nil, "end: `WHAT` is duration:SECONDS, filesize:KB, packets:N (of the kernel view, as -c) or files:N")
	flags.StringVar(&f.compress, "compress", "", "compress what is written: `HOW` is zstd or gzip (default by the name: .zst, .gz)")
}

// plan checks the flags, and gives others what they say as well: the duration of the capture and the
// number of its packets.
func (f *seriesFlags) plan(output string, of *captureFlags) (p seriesPlan, err error) {
	if f.size != "" {
		if p.Bytes, err = parseFileSize(f.size); err != nil {
			return p, err
		}
	}
	if f.seconds != "" {
		if p.Duration, err = parseSeconds("-G", f.seconds); err != nil {
			return p, err
		}
	}
	switch {
	case f.files < 0:
		return p, usagef("-W %d: give a number of files", f.files)
	case f.files > 0 && f.size == "" && f.seconds == "":
		return p, usagef("-W says how many files there are: when does the next one begin? Give -C SIZE or -G SECONDS as well")
	case f.size != "":
		p.kept = f.files
	default:
		p.Files = f.files
	}
	for _, condition := range f.switches {
		if err := p.switchAt(condition); err != nil {
			return p, err
		}
	}
	p.several = p.Bytes > 0 || p.Packets > 0 || p.Duration > 0 || p.Interval > 0
	if p.kept > 0 && !p.several {
		return p, usagef("-b files:%d: when does the next file begin? Give -b filesize:KB, duration:SECONDS or packets:N as well", p.kept)
	}
	for _, condition := range f.ends {
		if err := p.endAt(condition, of); err != nil {
			return p, err
		}
	}
	if p.Files > 0 && !p.several {
		return p, usagef("-a files:%d: when does the next file begin? Give -b filesize:KB, duration:SECONDS or packets:N as well", p.Files)
	}
	return p, p.check(output, f.compress)
}

func (p *seriesPlan) check(output, compress string) error {
	if compress == "" {
		_, p.compression = convert.CutCompression(output)
	}
	for i := range convert.Compressions {
		if c := &convert.Compressions[i]; c.Name == compress {
			p.compression = c
		}
	}
	switch suffix := filepath.Ext(output); {
	case suffix == ".xz" || suffix == ".bz2" || suffix == ".lz4":
		return usagef("-o %s: what is written can be compressed with zstd or gzip: give .zst or .gz", output)
	case compress != "" && p.compression == nil:
		return usagef("--compress %s: choose zstd or gzip", compress)
	case p.compression != nil && output == "":
		return usagef("--compress is for what is written: give a file (-o FILE), or -o - for stdout")
	case (p.several || p.Bytes > 0) && (output == "" || output == "-"):
		return usagef("a new file needs a name: give -o FILE")
	}
	if p.Interval > 0 && p.Duration > 0 {
		return usagef("a file ends after a duration or at an interval: choose one")
	}
	if (p.several || p.Files > 0) && strings.Contains(filepath.Base(output), "%") {
		_, err := expandTime(output, time.Now())
		return err
	}
	return nil
}

// switchAt takes a condition of -b.
func (p *seriesPlan) switchAt(condition string) error {
	what, value, _ := strings.Cut(condition, ":")
	var err error
	switch what {
	case "duration":
		p.Duration, err = parseSeconds("-b duration:", value)
	case "interval":
		p.Interval, err = parseSeconds("-b interval:", value)
	case "filesize":
		p.Bytes, err = parseKilobytes(condition, value)
	case "packets":
		p.Packets, err = parseCount("-b", condition, value)
	case "files":
		var n uint64
		n, err = parseCount("-b", condition, value)
		p.kept = int(min(n, 1<<30))
	default:
		return usagef("-b %s: give duration:SECONDS, interval:SECONDS, filesize:KB, packets:N or files:N", condition)
	}
	return err
}

// endAt takes a condition of -a.
func (p *seriesPlan) endAt(condition string, of *captureFlags) error {
	what, value, _ := strings.Cut(condition, ":")
	switch what {
	case "duration":
		if of.duration != "" {
			return usagef("-a %s and --duration %s say the same: choose one", condition, of.duration)
		}
		_, err := parseSeconds("-a duration:", value)
		of.duration = value
		return err
	case "packets":
		n, err := parseCount("-a", condition, value)
		if err == nil && of.packets != 0 {
			return usagef("-a %s and -c %d say the same: choose one", condition, of.packets)
		}
		of.packets = n
		return err
	case "files":
		n, err := parseCount("-a", condition, value)
		p.Files = int(min(n, 1<<30))
		return err
	case "filesize":
		n, err := parseKilobytes(condition, value)
		if err == nil && p.several {
			return usagef("-a %s ends a capture with one file: with several, -a files:N ends it", condition)
		}
		p.Bytes, p.Files = n, 1
		p.several = true
		return err
	}
	return usagef("-a %s: give duration:SECONDS, filesize:KB, packets:N or files:N", condition)
}

// parseFileSize parses the size of -C, of which a bare number is millions of bytes.
func parseFileSize(s string) (int64, error) {
	if n, err := strconv.ParseUint(s, 10, 40); err == nil && n > 0 {
		return int64(n) * 1_000_000, nil
	}
	n, err := parseSize(s)
	if err != nil || n <= 0 {
		return 0, usagef("-C %q is not a size, such as 100 (millions of bytes) or 64M", s)
	}
	return int64(n), nil
}

func parseKilobytes(condition, s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 40)
	if err != nil || n == 0 {
		return 0, usagef("%s: give a number of kilobytes, such as filesize:10000", condition)
	}
	return int64(n) * 1000, nil
}

func parseCount(flag, condition, s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return 0, usagef("%s %s: give a number", flag, condition)
	}
	return n, nil
}

func parseSeconds(flag, s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err != nil || d <= 0 {
		return 0, usagef("%s%q is not a time, such as 60 (seconds) or 5m", cmp.Or(strings.TrimSuffix(flag, ":")+" ", " "), s)
	}
	return d, nil
}

// expandTime replaces the conversions of strftime in the name of a file.
func expandTime(name string, at time.Time) (string, error) {
	folder, base := filepath.Split(name)
	var b strings.Builder
	for i := 0; i < len(base); i++ {
		if base[i] != '%' {
			b.WriteByte(base[i])
			continue
		}
		i++
		if i == len(base) {
			return "", usagef("-o %s: a %% at its end: %%%% stands for one", name)
		}
		layout := map[byte]string{
			'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'j': "002",
			'F': "2006-01-02", 'T': "15:04:05", 'b': "Jan", 'a': "Mon", 'z': "-0700", 'Z': "MST",
		}[base[i]]
		switch {
		case base[i] == '%':
			b.WriteByte('%')
		case base[i] == 's':
			b.WriteString(strconv.FormatInt(at.Unix(), 10))
		case layout != "":
			b.WriteString(at.Format(layout))
		default:
			return "", usagef("-o %s: %%%c is no part of a time that is known here: choose some of %%Y %%m %%d %%H %%M %%S %%y %%j %%F %%T %%b %%a %%z %%Z %%s", name, base[i])
		}
	}
	return folder + b.String(), nil
}

// seriesName is the name of a file of a series. Without a time of its own it has number and time, as
// dumpcap makes it: name_00001_20060102150405.pcapng.
func seriesName(name string, n int, at time.Time) string {
	expanded, err := expandTime(name, at)
	if err != nil || !strings.Contains(filepath.Base(name), "%") {
		return beforeSuffix(name, fmt.Sprintf("_%05d_%s", n, at.Format("20060102150405")))
	}
	return expanded
}

// beforeSuffix puts a text before the suffixes of a name.
func beforeSuffix(name, text string) string {
	inner, _ := convert.CutCompression(name)
	inner = strings.TrimSuffix(inner, filepath.Ext(inner))
	return inner + text + strings.TrimPrefix(name, inner)
}

// fileSeries makes the files of a capture, and removes those that are too many.
type fileSeries struct {
	app   *app
	name  string // as -o has it
	kept  int    // 0 is all
	one   bool   // there is only one, which has the name as it is
	made  int
	begun string // the name before, without a number
	last  string
	older string // the one before the last
	done  []outfile.Left
}

// create makes the next file.
func (s *fileSeries) create(ctx context.Context, at time.Time) (*outfile.File, error) {
	name := seriesName(s.name, s.made+1, at)
	if s.one && !strings.Contains(filepath.Base(s.name), "%") {
		name = s.name
	}
	if name == s.begun {
		name = beforeSuffix(name, fmt.Sprintf("_%05d", s.made+1)) // within a second
	} else {
		s.begun = name
	}
	file, err := s.app.files.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	if file.Pipe() {
		return nil, usagef("%s is no regular file, so that no other one can follow it", name)
	}
	s.made++
	s.older, s.last = s.last, name
	return file, nil
}

// String says how many files there are.
func (s *fileSeries) String() string {
	text := counted(uint64(s.made), "file")
	if gone := s.made - len(s.done); s.kept > 0 && gone > 0 {
		text += fmt.Sprintf(", of which the last %d are there", len(s.done))
	}
	return text + ", the last one is " + s.last
}

// next makes the next file, after the current one has ended.
func (s *fileSeries) next(at time.Time) (convert.Target, error) {
	file, err := s.create(context.Background(), at)
	if err != nil {
		return nil, err
	}
	return &seriesFile{file, s}, s.removeOld()
}

// removeOld removes the oldest files, so that there are no more than are to be kept, with the
// current one.
func (s *fileSeries) removeOld() error {
	if s.kept == 0 {
		return nil
	}
	for len(s.done)+1 > s.kept {
		if err := s.done[0].Remove(); err != nil {
			return err
		}
		s.done = s.done[1:]
	}
	return nil
}

// capabilities are those that making, and removing, files in the folder takes.
func (s *fileSeries) capabilities() []int {
	folder := filepath.Dir(s.name)
	needs := confine.NeedsToRemoveFrom(folder)
	if outfile.Caller().Gives() {
		needs = append(needs, unix.CAP_CHOWN)
	}
	return needs
}

// seriesFile is a file that its series remembers.
type seriesFile struct {
	*outfile.File
	series *fileSeries
}

// Finish closes the file.
func (f *seriesFile) Finish(failure error) error {
	if s := f.series; failure != nil && !f.Begun() && s.made > 1 {
		// It goes, as on a full disk: there is none.
		s.made--
		s.last = s.older
		return f.File.Finish(failure)
	}
	if f.series.kept > 0 {
		if left, ok := f.Left(); ok {
			f.series.done = append(f.series.done, left)
		}
	}
	return f.File.Finish(failure)
}

// countedView is the view whose packets -b packets:N counts: the one that -c counts, if it is recorded.
func countedView(views []capture.View) capture.View {
	if slices.Contains(views, capture.ViewKernel) {
		return capture.ViewKernel
	}
	return views[0]
}

// openSeries makes the output a series.
func (out *captureOutput) openSeries(ctx context.Context, p capturePlan) error {
	files := &fileSeries{app: out.app, name: p.output.text, kept: p.series.kept, one: p.series.Files == 1}
	first, err := files.create(ctx, time.Now())
	if err != nil {
		return err
	}
	out.series, out.file, out.to = files, first, first
	options := convert.SeriesOptions{
		SeriesLimits: p.series.SeriesLimits, Compression: p.series.compression, Next: files.next,
		Interfaces: out.possible, Counted: countedView(p.config.Views),
	}
	if p.config.Expression != nil {
		options.Unwanted = func(v capture.View) (uint64, error) { return out.unwanted(v) } // once the capture is open
	}
	out.recordedFile, err = convert.NewSeries(&seriesFile{first, files}, p.form, options)
	return err
}
