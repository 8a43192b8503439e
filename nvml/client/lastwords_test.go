package client

import (
	"strings"
	"testing"
)

func TestLastWordsAreTheFirstAndTheLast(t *testing.T) {
	dump := "SIGABRT: abort\nPC=0x7f m=0 sigcode=0\n\n" + strings.Repeat("goroutine 1 [running]:\n\tmain.main()\n", 500) + "rip    0x7f\nfs     0x0\n"
	for name, test := range map[string]struct{ said, begin, end string }{
		"nothing":    {"", "", ""},
		"one line":   {"symbol lookup error: undefined symbol\n", "symbol lookup error: undefined symbol", "undefined symbol"},
		"both ends":  {"a\r\n\n\tb\n", "a; b", "b"},
		"a crash":    {dump, "SIGABRT: abort; PC=0x7f m=0 sigcode=0; goroutine 1 [running]:; main.main()", "rip 0x7f; fs 0x0"},
		"no end":     {strings.Repeat("\xff", 5000), "?", "?"},
		"just fits":  {strings.Repeat("a", 960), strings.Repeat("a", 960), "a"},
		"in letters": {strings.Repeat("ä", 3000), "ä", "ä"},
	} {
		var whole, pieces lastWords
		_, _ = whole.Write([]byte(test.said))
		for i := range len(test.said) {
			_, _ = pieces.Write([]byte(test.said[i : i+1]))
		}
		got := whole.String()
		if !strings.HasPrefix(got, test.begin) || !strings.HasSuffix(got, test.end) {
			t.Errorf("%s: %q, want from %q to %q", name, got, test.begin, test.end)
		}
		if len(got) > 1000 || strings.Contains(got, "…") != (len(test.said) > 960) || strings.ContainsAny(got, "\n\r\t") {
			t.Errorf("%s: %d bytes: %q", name, len(got), got)
		}
		if again := pieces.String(); again != got {
			t.Errorf("%s: written byte by byte: %q, want %q", name, again, got)
		}
	}
}
