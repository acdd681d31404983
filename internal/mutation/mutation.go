// Package mutation tests file readers with thousands of damaged files: none may cause a
// panic, an endless loop, or memory use out of proportion to the file.
package mutation

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// Count is the number of damaged files that each format is tested with.
const Count = 2000

// Bound limits the total memory allocated while one file is read, including what is freed
// meanwhile. That also bounds the work, independently of the load on the machine.
type Bound struct {
	// Fixed is allowed for any file, and PerByte for each byte of it.
	Fixed, PerByte uint64
}

// Test calls read with Count mutants of the seeds. read returns the number of things that
// it found in the file, which must not exceed the number of bytes.
//
// The mutants are the same in every run. The environment variable MUTATION_SEED, a
// number, selects others.
func Test(t *testing.T, bound Bound, seeds [][]byte, read func(t *testing.T, file []byte) int) {
	t.Helper()
	number := uint64(1)
	if other := os.Getenv("MUTATION_SEED"); other != "" {
		var err error
		if number, err = strconv.ParseUint(other, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MUTATION_SEED=%d", number)
	random := rand.New(rand.NewPCG(number, 0))
	for _, seed := range seeds {
		read(t, seed) // allocates what is allocated only once
	}
	var (
		before, after runtime.MemStats
		most          uint64
	)
	for n := range Count {
		file := mutant(random, seeds[n%len(seeds)])
		runtime.ReadMemStats(&before)
		found := read(t, file)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		most = max(most, allocated)
		if limit := bound.Fixed + bound.PerByte*uint64(len(file)); allocated > limit {
			t.Errorf("mutant %d of %d bytes: %d bytes were allocated, and %d are the most; %s", n, len(file), allocated, limit, keep(t, file))
		}
		if found > len(file) {
			t.Errorf("mutant %d of %d bytes: %d things in it; %s", n, len(file), found, keep(t, file))
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("at most %d KiB were allocated for a file", most>>10)
}

// keep saves a file that failed.
func keep(t *testing.T, file []byte) string {
	f, err := os.CreateTemp("", "mutant-*")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.Write(file); err != nil {
		return err.Error()
	}
	return "it is in " + f.Name()
}

// mutant returns a seed with one to eight changes.
func mutant(random *rand.Rand, seed []byte) []byte {
	file := bytes.Clone(seed)
	for range 1 + random.IntN(8) {
		if len(file) < 16 {
			return append(file, seed...)
		}
		file = changes[random.IntN(len(changes))](random, file)
	}
	return file
}

// limits are values at which lengths and counts overflow.
var limits = []uint64{0, 1, 3, 4, 0x7f, 0xff, 0x7fff, 0xffff, 1 << 20, 1<<24 - 1, 1 << 28, 1<<31 - 1, 1 << 31, 1<<32 - 4, 1<<32 - 1, 1<<63 - 1, 1 << 63, 1<<64 - 1}

// changes are the kinds of damage. They are called with at least 16 bytes.
var changes = []func(random *rand.Rand, file []byte) []byte{
	func(random *rand.Rand, file []byte) []byte { // a bit
		file[random.IntN(len(file))] ^= 1 << random.IntN(8)
		return file
	},
	func(random *rand.Rand, file []byte) []byte { // a byte
		file[random.IntN(len(file))] = byte(random.Uint32())
		return file
	},
	func(random *rand.Rand, file []byte) []byte { // an aligned number of some size
		number := limits[random.IntN(len(limits))]
		size := 1 << random.IntN(4)
		at := random.IntN(len(file)-size+1) &^ (size - 1)
		var b [8]byte
		if random.IntN(2) == 0 {
			binary.LittleEndian.PutUint64(b[:], number)
			copy(file[at:at+size], b[:])
		} else {
			binary.BigEndian.PutUint64(b[:], number)
			copy(file[at:at+size], b[8-size:])
		}
		return file
	},
	func(random *rand.Rand, file []byte) []byte { // a number as text
		at := random.IntN(len(file))
		end := at
		for end < len(file) && file[end] >= '0' && file[end] <= '9' {
			end++
		}
		number := fmt.Append(nil, limits[random.IntN(len(limits))])
		return bytes.Join([][]byte{file[:at], number, file[end:]}, nil)
	},
	func(random *rand.Rand, file []byte) []byte { // remove a part
		at, end := span(random, file)
		return append(file[:at:at], file[end:]...)
	},
	func(random *rand.Rand, file []byte) []byte { // copy a part elsewhere
		at, end := span(random, file)
		to := random.IntN(len(file))
		return bytes.Join([][]byte{file[:to], file[at:end], file[to:]}, nil)
	},
	func(random *rand.Rand, file []byte) []byte { // cut off
		return file[:1+random.IntN(len(file)-1)]
	},
}

// span chooses a part of a file, usually a small one.
func span(random *rand.Rand, file []byte) (start, end int) {
	start = random.IntN(len(file))
	length := 1 + random.IntN(min(64, len(file)))
	if random.IntN(8) == 0 {
		length = 1 + random.IntN(min(4096, len(file)))
	}
	return start, min(start+length, len(file))
}
