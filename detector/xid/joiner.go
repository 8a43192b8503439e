package xid

import "bytes"

// JoinDepth is how many records one event may span, from the first that
// belongs to it to the one that completes it.
const JoinDepth = 64

// joinWithin is how many records may lie between two that belong together. The
// kernel prints such records in one go, so they are neighbours in its ring; the
// allowance is for other processors that print at the same time, and for logs
// that were merged from several sources when they were saved.
const joinWithin = 6

// Joiner reads the records of one log in order, and makes one event of those
// that belong together:
//
//   - the three lines that tell that a GPU fell off the bus before it was
//     initialised, where a saved log has broken them apart. /dev/kmsg keeps them
//     in one record, which [Parse] reads as it is;
//   - a task that hangs in the driver: the watchdog's line, and the trace behind
//     it that shows where;
//   - a PCIe error that the firmware reports through APEI;
//   - a PCIe error report and its details, a failed initialisation and its
//     second line: the first is the event, at once.
//
// Each line is matched by more fixed text than a process name can hold, or by
// what the kernel alone prints. The zero Joiner is ready. Behind a gap in the
// log start with a new one.
type Joiner struct {
	n      uint64 // records read
	lost   lostLines
	stall  stall
	apei   firmwareError
	latest latest
}

// Next takes the next record, in Parse's form, and returns the event that ends
// with it, if one does. back is how many records before this one the event
// began: 0 unless it was joined, and less than JoinDepth.
func (j *Joiner) Next(text []byte) (line Line, back int, ok bool) {
	j.n++
	if j.lost.lines > 0 {
		if line, back, taken := j.lost.next(text, j.n); taken {
			return line, back, line.Kind != None
		}
	}
	if line, ok = Parse(text); ok {
		return line, 0, !j.latest.has(&line, j.n)
	}
	if len(text) == 0 {
		return Line{}, 0, false
	}
	switch {
	case len(j.stall.held) > 0:
		if line, back, ok = j.stall.next(text, j.n); ok {
			return line, back, true
		}
	case text[0] == 'N' && isLostHead(text):
		j.lost = lostLines{held: bytes.Clone(bytes.TrimSpace(text)), lines: 1, first: j.n}
		return Line{}, 0, false
	}
	switch text[0] {
	case 'I', 'w', 'r', 'N', 'B':
		j.stall.opens(text, j.n)
	case '{':
		if line, back, ok = j.apei.next(text, j.n); ok {
			return line, back, !j.latest.has(&line, j.n)
		}
	}
	return Line{}, 0, false
}

// lostLines are the lines so far of a GPU that fell off the bus.
type lostLines struct {
	held  []byte // as the driver printed them
	lines int    // 0: none
	first uint64 // the record of the first
}

// next takes text if it is the line that is missing; with the last one it gives
// the event.
func (l *lostLines) next(text []byte, n uint64) (line Line, back int, taken bool) {
	if n-l.first > joinWithin {
		*l = lostLines{}
		return Line{}, 0, false
	}
	rest, ok := cut(cutBlanks(text), "NVRM: ") // dmesg indents what follows a newline
	if !ok {
		return Line{}, 0, false
	}
	if l.lines == 1 {
		_, ok = cut(rest, lostIDs)
	} else {
		_, ok = cut(rest, lostTail)
	}
	if !ok {
		if isLostHead(text) { // told again from the start
			*l = lostLines{held: bytes.Clone(bytes.TrimSpace(text)), lines: 1, first: n}
		}
		return Line{}, 0, false
	}
	l.held = append(append(l.held, '\n'), bytes.TrimSpace(text)...)
	if l.lines++; l.lines < 3 {
		return Line{}, 0, true
	}
	line, _ = Parse(l.held)
	back = int(n - l.first)
	*l = lostLines{}
	return line, back, true
}

// isLostHead reports whether text is the first of the three lines and no more.
func isLostHead(text []byte) bool {
	rest, ok := cut(text, "NVRM: "+lostHead)
	if !ok {
		return false
	}
	_, rest, ok = cutAddress(rest)
	return ok && len(bytes.TrimSpace(rest)) == 0
}
