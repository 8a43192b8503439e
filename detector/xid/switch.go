package xid

import "bytes"

// parseSwitch reads an SXid. text is the whole record, rest what follows
// "nvidia-nvswitch". The format is NVSWITCH_PRINT_SXID's (common_nvswitch.h):
//
//	nvidia-nvswitch<n>: SXid (PCI:<address>): <code>, [<severity>, ][Link <n> ]<message>
//
// The driver prints more records of the same code for one event: they are none.
func parseSwitch(text, rest []byte) (Line, bool) {
	_, rest, ok := cutDecimal(rest, 3)
	if !ok {
		return Line{}, false
	}
	name := text[:len(text)-len(rest)]
	if rest, ok = cut(rest, ": SXid (PCI:"); !ok {
		return Line{}, false
	}
	addr, rest, ok := cutAddress(rest)
	if !ok {
		return Line{}, false
	}
	code, message, ok := cutCode(rest)
	if !ok || isContinuation(message) {
		return Line{}, false
	}
	line := Line{
		Kind: SXid, Code: code, PCI: addr.String(),
		Switch: string(name), Text: printable(message),
	}
	for _, severity := range []string{"Fatal", "Non-fatal", "Correctable"} {
		if tail, ok := cut(message, severity); ok {
			if tail, ok = cut(tail, ","); ok {
				line.Severity = severity
				message = cutBlanks(tail)
				break
			}
		}
	}
	if tail, ok := cut(message, "Link "); ok {
		if port, tail, ok := cutDecimal(tail, 3); ok && (len(tail) == 0 || tail[0] == ' ') {
			line.Port = &port
		}
	}
	return line, true
}

// isContinuation reports whether a record with this message belongs to an SXid
// that has a record of its own: the error log entry (error_nvswitch.c), its
// data, and the trace of a halted SOE (flcn_ls10.c).
func isContinuation(message []byte) bool {
	if _, ok := cut(message, "Data {"); ok {
		return true
	}
	if _, ok := cut(message, "SOE HALT data["); ok {
		return true
	}
	if rest, ok := cut(message, "Severity "); ok {
		_, rest, ok = cutDecimal(rest, 3)
		return ok && bytes.HasPrefix(rest, []byte(" Engine instance"))
	}
	return false
}
