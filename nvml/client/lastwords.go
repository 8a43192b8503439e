package client

import (
	"bytes"
	"strings"
	"sync"
)

// lastWords keeps the beginning and the end of what a process writes to its
// standard error. What a Go program ends of, or the dynamic linker, comes first;
// what it was at is between a few hundred lines of others.
type lastWords struct {
	mu    sync.Mutex // guards all below
	begin []byte
	end   []byte
	cut   bool // something between them is left out
}

// wordsKept is the length of each end that is kept, in bytes: an error has room
// for both.
const wordsKept = 480

// Write implements [io.Writer].
func (l *lastWords) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(b), wordsKept-len(l.begin))
	l.begin = append(l.begin, b[:n]...)
	l.end = append(l.end, b[n:]...)
	if over := len(l.end) - wordsKept; over > 0 {
		l.end, l.cut = append([]byte(nil), l.end[over:]...), true
	}
	return len(b), nil
}

// String gives them on one line.
func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cut {
		return oneLine(append(bytes.Clone(l.begin), l.end...))
	}
	end := l.end
	if _, rest, ok := bytes.Cut(end, []byte("\n")); ok {
		end = rest // without what is left of a line
	}
	return oneLine(l.begin) + " … " + oneLine(end)
}

func oneLine(text []byte) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(strings.ToValidUTF8(string(text), "?"), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
