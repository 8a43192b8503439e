package xid

import "bytes"

// parseSwitch reads an SXid. text is the whole record, rest what follows
// "nvidia-nvswitch". The format is NVSWITCH_PRINT_SXID's (common_nvswitch.h):
//
//	nvidia-nvswitch<n>: SXid (PCI:<address>): <code>, [<severity>, ][Link <n> ]<message>
//
// The driver prints more records of the same code for one event: they are none.
func parseSwitch(text, rest []byte) (Line, bool) {
	if message, ok := cut(rest, ": "); ok {
		return parseSwitches(message)
	}
	_, rest, ok := cutDecimal(rest, 3)
	if !ok {
		return Line{}, false
	}
	name := text[:len(text)-len(rest)]
	if rest, ok = cut(rest, ": SXid (PCI:"); !ok {
		return parseSwitchTrouble(name, text[len(name):])
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

// parseSwitchTrouble reads what the kernel interface of one NVSwitch says
// without an SXid (linux_nvswitch.c): ": <message>".
func parseSwitchTrouble(name, rest []byte) (Line, bool) {
	message, ok := cut(rest, ":")
	if !ok {
		return Line{}, false
	}
	message = cutBlanks(message)
	for _, start := range []string{
		"Failed to initialize device : ",
		"Failed to initialize interrupt : ",
		"Failed to enable PCI device : ",
		"Failed to map BAR0 region : ",
		"Failed during device post init : ",
		"Interrupts disabled to avoid a storm",
	} {
		if _, ok := cut(message, start); ok {
			line, _ := told(Link, message, true)
			line.Switch = string(name)
			return line, true
		}
	}
	return Line{}, false
}

// parseSwitches reads what it says of no switch in particular.
func parseSwitches(message []byte) (Line, bool) {
	if _, ok := cut(message, "Version mismatch, kernel version "); ok {
		return told(Software, message, true)
	}
	_, ok := cut(message, "unrecoverable error in ISR")
	return told(Link, message, ok)
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
