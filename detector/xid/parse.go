package xid

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// maxText bounds [Line.Text]: the kernel's own records hold about as much.
const maxText = 1024

// Parse reads the text of one kernel record: header gone, escapes undone,
// newlines of a message printed in one go still inside. It reports false, and
// the zero Line, for whatever is not an event: other programs' records,
// the driver's banners, and records that only continue an event (the severity
// and data records behind an SXid).
//
// Every shape is anchored at the first byte of the record with at least 16
// bytes of fixed text. A process name has at most 15 bytes, so neither a
// record of the kernel that begins with a name, nor a line that a log reader
// broke at a newline inside a name, passes for an event.
//
// Parse does not know who wrote the record: records of another facility than
// the kernel's own must not be given to it.
func Parse(text []byte) (Line, bool) {
	if len(text) == 0 {
		return Line{}, false
	}
	switch text[0] { // sends nearly every other record of the log away
	case 'N':
		if rest, ok := cut(text, "NVRM: Xid (PCI:"); ok {
			return parseXid(rest)
		}
		if rest, ok := cut(text, "NVRM: "); ok {
			return parseDriver(rest)
		}
	case 'n':
		if rest, ok := cut(text, "nvidia-nvswitch"); ok {
			return parseSwitch(text, rest)
		}
		if rest, ok := cut(text, "nvidia "); ok {
			return parsePCIe(rest)
		}
		if rest, ok := cut(text, "nvidia-peermem "); ok {
			return parsePeerMemory(rest)
		}
		if rest, ok := cut(text, "nvidia-uvm: "); ok {
			return parseUVM(rest)
		}
	case 'p':
		if rest, ok := cut(text, "pcieport "); ok {
			return parsePCIe(rest)
		}
		if rest, ok := cut(text, "pciehp "); ok {
			return parseOldSlot(rest)
		}
		if rest, ok := cut(text, "pci "); ok { // a device without a driver: it may just have lost it
			return parsePCIe(rest)
		}
	case '_':
		if bytes.HasPrefix(text, []byte("_kgsp")) { // some logs lose the NVRM before it
			return parseDriver(text)
		}
	}
	return Line{}, false
}

// parseXid reads what follows "NVRM: Xid (PCI:". The format is krcReportXid's
// in the open kernel modules (kernel_rc.c):
//
//	<address>[ GPU-I:<n>][ GPU-CI:<n>]): <code>, [pid=<n>, name=<comm>, ]<message>[ caused by previous Xid <n>]
func parseXid(rest []byte) (Line, bool) {
	addr, rest, ok := cutAddress(rest)
	if !ok {
		return Line{}, false
	}
	line := Line{Kind: Xid}
	if line.GPUInstance, rest, ok = cutInstance(rest, " GPU-I:"); !ok {
		return Line{}, false
	}
	if line.ComputeInstance, rest, ok = cutInstance(rest, " GPU-CI:"); !ok {
		return Line{}, false
	}
	if line.Code, rest, ok = cutCode(rest); !ok {
		return Line{}, false
	}
	line.PCI = addr.String()

	pid, rest := cutPID(rest)
	line.PID = pid
	name, message := cutName(rest)
	if string(name) != "<unknown>" {
		line.Process = printable(name)
	}
	line.Text = printable(message)

	// What is decoded stands behind the last ", ", which is the driver's: it
	// prints one behind the name, and the messages decoded here hold none.
	last := lastField(rest)
	switch {
	case line.Code == 45:
		line.CausedBy = previousXid(last)
	case line.Code == 154:
		line.Action = recoveryAction(last)
	case line.Code >= 144 && line.Code <= 150:
		if line.NVLink = parseNVLink(last); line.NVLink != nil {
			line.Severity = line.NVLink.severity()
		}
	}
	return line, true
}

// cutInstance takes an optional MIG instance: nil and true if label is not
// there, false if no number follows it.
func cutInstance(b []byte, label string) (*int, []byte, bool) {
	rest, ok := cut(b, label)
	if !ok {
		return nil, b, true
	}
	n, rest, ok := cutDecimal(rest, 5)
	if !ok {
		return nil, b, false
	}
	return new(n), rest, true
}

// cutCode takes "): <code>" and the ", " behind it, or the end of the record.
func cutCode(b []byte) (int, []byte, bool) {
	rest, ok := cut(b, "): ")
	if !ok {
		return 0, b, false
	}
	code, rest, ok := cutDecimal(rest, 6)
	if !ok {
		return 0, b, false
	}
	rest, ok = cutBorder(rest)
	return code, rest, ok
}

// previousXid is N of a message that ends in "caused by previous Xid N", else 0.
func previousXid(message []byte) int {
	const phrase = " caused by previous Xid "
	i := bytes.LastIndex(message, []byte(phrase))
	if i < 0 {
		return 0
	}
	n, rest, ok := cutDecimal(message[i+len(phrase):], 6)
	if !ok || len(bytes.TrimSpace(rest)) > 0 {
		return 0
	}
	return n
}

// recoveryAction reads the message of Xid 154, as gpu.c prints it:
//
//	GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)
func recoveryAction(message []byte) *Action {
	rest, ok := cut(message, "GPU recovery action changed from 0x")
	if !ok {
		return nil
	}
	from, rest, ok := cutHex(rest, 1, 4)
	if !ok {
		return nil
	}
	i := bytes.Index(rest, []byte(" to 0x"))
	if i < 0 {
		return nil
	}
	to, _, ok := cutHex(rest[i+len(" to 0x"):], 1, 4)
	if !ok {
		return nil
	}
	return &Action{From: int(from), To: int(to)}
}

// printable is b in a form that is safe to show: blanks for newlines and tabs, a
// question mark for each other byte that no terminal should get, bounded by
// maxText.
func printable(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) > maxText {
		n := maxText
		for n > maxText-utf8.UTFMax && !utf8.RuneStart(b[n]) {
			n--
		}
		b = b[:n]
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return scrubbed(b)
		}
	}
	return string(b)
}

func scrubbed(b []byte) string {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == '\n' || r == '\t':
			out = append(out, ' ')
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			out = append(out, '?')
		default:
			out = append(out, b[:size]...)
		}
		b = b[size:]
	}
	return string(out)
}
