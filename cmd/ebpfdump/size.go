package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseSize parses a size in bytes. K, M and G, also as KiB, MiB and GiB, are powers of
// 1024. A bare number is in KiB, as for tcpdump -B.
func parseSize(s string) (int, error) {
	digits := strings.TrimRight(s, "BKMGibkmg")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size, such as 64M", s)
	}
	var shift uint
	switch strings.ToLower(s[len(digits):]) {
	case "", "k", "kib":
		shift = 10
	case "m", "mib":
		shift = 20
	case "g", "gib":
		shift = 30
	default:
		return 0, fmt.Errorf("%q is not a size, such as 64M", s)
	}
	if n > math.MaxInt>>shift {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return int(n << shift), nil
}
