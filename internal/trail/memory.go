package trail

import (
	"strconv"
	"strings"
)

const (
	maxSources = 1024
	maxRecent  = 4096
)

// memory knows which ids were met.
type memory struct {
	sources map[string]*highest // by BOOT/SOURCE
	others  map[string]struct{}
	recent  []string // others in the order in which they came, as a ring
	oldest  int      // in recent, once it is full
}

// highest is the highest number met of one source, and when it was met.
type highest struct {
	number uint64
	at     Position
}

func newMemory() memory {
	return memory{sources: map[string]*highest{}, others: map[string]struct{}{}}
}

// met says whether the id was added before.
func (m *memory) met(id string) bool {
	if source, number, ok := splitID(id); ok {
		h := m.sources[source]
		return h != nil && number <= h.number
	}
	_, ok := m.others[id]
	return ok
}

// add remembers an id that was appended at a position.
func (m *memory) add(id string, at Position) {
	source, number, ok := splitID(id)
	if ok {
		m.raise(source, number, at)
		return
	}
	if _, ok := m.others[id]; ok {
		return
	}
	m.others[id] = struct{}{}
	if len(m.recent) < maxRecent {
		m.recent = append(m.recent, id)
		return
	}
	delete(m.others, m.recent[m.oldest])
	m.recent[m.oldest] = id
	m.oldest = (m.oldest + 1) % maxRecent
}

func (m *memory) raise(source string, number uint64, at Position) {
	if h := m.sources[source]; h != nil {
		h.number, h.at = max(h.number, number), max(h.at, at)
		return
	}
	if len(m.sources) >= maxSources {
		m.forget()
	}
	m.sources[strings.Clone(source)] = &highest{number, at} // the id need not live as long
}

// forget drops the source that has been silent for longest.
func (m *memory) forget() {
	var silent string
	at := ^Position(0)
	for source, h := range m.sources {
		if h.at < at {
			silent, at = source, h.at
		}
	}
	delete(m.sources, silent)
}

// marks are the highest numbers, for a header.
func (m *memory) marks() map[string]uint64 {
	marks := make(map[string]uint64, len(m.sources))
	for source, h := range m.sources {
		marks[source] = h.number
	}
	return marks
}

// restore takes the marks of the header of a segment that starts at a
// position.
func (m *memory) restore(marks map[string]uint64, at Position) {
	for source, number := range marks {
		m.raise(source, number, at)
	}
}

// splitID takes an id BOOT/SOURCE/N apart. Only the one way of writing a
// number counts, so that two ids never mean the same N.
func splitID(id string) (source string, number uint64, ok bool) {
	i := strings.LastIndexByte(id, '/')
	if i < 0 {
		return "", 0, false
	}
	source = id[:i]
	digits := id[i+1:]
	if slash := strings.IndexByte(source, '/'); slash < 1 || slash == len(source)-1 {
		return "", 0, false
	}
	if digits == "" || digits[0] < '0' || digits[0] > '9' || digits[0] == '0' && digits != "0" {
		return "", 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return source, number, err == nil
}
