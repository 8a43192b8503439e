package xid

import "bytes"

// maxComm is how long a process name can be: the kernel's TASK_COMM_LEN less
// the NUL. The driver prints the name as the kernel has it.
const maxComm = 15

// cutPID takes "pid=<n>, " off b. It is nil where the driver does not know the
// process (pid='<unknown>') and where the line has no such field.
func cutPID(b []byte) (*int, []byte) {
	field, ok := cut(b, "pid=")
	if !ok {
		return nil, b
	}
	if rest, ok := cut(field, "'<unknown>'"); ok {
		if rest, ok = cutBorder(rest); ok {
			return nil, rest
		}
		return nil, b
	}
	n, rest, ok := cutDecimal(field, 10)
	if !ok {
		return nil, b
	}
	if rest, ok = cutBorder(rest); !ok {
		return nil, b
	}
	return new(n), rest
}

// cutName parts "name=<comm>, <message>". A name may hold ", " itself, so the
// border cannot be seen for certain. Since the true one lies within the first
// 16 bytes, the last ", " there is taken: then no byte of the message is the
// tenant's, and what a short name loses is at most the driver's first words to
// the name. One such loss is common and is mended: "Ch <8 hex digits>, ".
//
// A name longer than any comm (a driver or kernel that we do not know) ends at
// its first ", ".
func cutName(b []byte) (name, message []byte) {
	field, ok := cut(b, "name=")
	if !ok {
		return nil, b
	}
	border := -1
	for i := 0; i <= maxComm && i < len(field); i++ {
		if isBorder(field, i) {
			border = i
		}
	}
	if border < 0 {
		if len(field) <= maxComm {
			return field, nil
		}
		if border = bytes.Index(field, []byte(", ")); border < 0 {
			return nil, b
		}
	}
	if short := border - len(", Ch 00000000"); short >= 0 && isChannel(field[short:border]) {
		border = short
	}
	message, _ = cutBorder(field[border:])
	return field[:border], message
}

// isChannel reports whether b is ", Ch " and eight hex digits.
func isChannel(b []byte) bool {
	digits, ok := cut(b, ", Ch ")
	if !ok {
		return false
	}
	_, rest, ok := cutHex(digits, 8, 8)
	return ok && len(rest) == 0
}

// isBorder reports whether a field of b ends at i.
func isBorder(b []byte, i int) bool {
	return b[i] == ',' && (i+1 == len(b) || b[i+1] == ' ')
}

// cutBorder takes the ", " between two fields; the end of the record will do.
func cutBorder(b []byte) ([]byte, bool) {
	if len(b) == 0 {
		return b, true
	}
	if !isBorder(b, 0) {
		return b, len(bytes.TrimSpace(b)) == 0
	}
	return b[min(2, len(b)):], true
}

// lastField is what stands behind the last ", " of b.
func lastField(b []byte) []byte {
	if i := bytes.LastIndex(b, []byte(", ")); i >= 0 {
		return b[i+2:]
	}
	return b
}
