package xid

import "bytes"

// joinWithin is how many records may lie between the first and the last line
// of one message. The driver prints such a message in one go, so its lines
// are neighbours in the kernel's ring; the allowance is for logs that
// were merged from several sources when they were saved.
const joinWithin = 6

// Joiner reads the records of one log in order and joins the one message that
// a saved log may have broken at its newlines: a GPU that fell off the bus
// before it was initialised, told in three lines. /dev/kmsg keeps it in one
// record, which [Parse] reads as it is.
//
// Each of the three lines is matched from its first byte, by more fixed text
// than a process name can hold. The zero Joiner is ready. Behind a gap in the
// log start with a new one.
type Joiner struct {
	held  []byte // the lines so far, as the driver printed them
	lines int
	age   int // records since the first line
}

// Next takes the next record, in Parse's form, and returns the event that ends
// with it, if one does. back is how many records before this one the event
// began: 0 unless it was joined.
func (j *Joiner) Next(text []byte) (line Line, back int, ok bool) {
	if j.lines > 0 {
		j.age++
		if j.age > joinWithin {
			j.drop()
		} else if j.continues(text) {
			if j.lines < 3 {
				return Line{}, 0, false
			}
			line, ok = Parse(j.held)
			back = j.age
			j.drop()
			return line, back, ok
		}
	}
	if line, ok = Parse(text); !ok && isLostHead(text) {
		j.drop()
		j.hold(text)
	}
	return line, 0, ok
}

// continues takes text if it is the line that is missing.
func (j *Joiner) continues(text []byte) bool {
	rest, ok := cut(cutBlanks(text), "NVRM: ") // dmesg indents what follows a newline
	if !ok {
		return false
	}
	if j.lines == 1 {
		_, ok = cut(rest, lostIDs)
	} else {
		_, ok = cut(rest, lostTail)
	}
	if ok {
		j.held = append(j.held, '\n')
		j.hold(cutBlanks(text))
	}
	return ok
}

func (j *Joiner) hold(text []byte) {
	j.held = append(j.held, bytes.TrimSpace(text)...)
	j.lines++
}

func (j *Joiner) drop() { j.held, j.lines, j.age = j.held[:0], 0, 0 }

// isLostHead reports whether text is the first of the three lines and no more.
func isLostHead(text []byte) bool {
	rest, ok := cut(text, "NVRM: "+lostHead)
	if !ok {
		return false
	}
	_, rest, ok = cutAddress(rest)
	return ok && len(bytes.TrimSpace(rest)) == 0
}
