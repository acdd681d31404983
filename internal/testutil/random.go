package testutil

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Random returns random numbers, in every run others, and logs their seed. With that in the
// environment variable EBPFDUMP_SEED, a test has the same ones again.
func Random(tb testing.TB) *rand.Rand {
	tb.Helper()
	seed := rand.Uint64()
	if again := os.Getenv("EBPFDUMP_SEED"); again != "" {
		var err error
		if seed, err = strconv.ParseUint(again, 10, 64); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Logf("EBPFDUMP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
