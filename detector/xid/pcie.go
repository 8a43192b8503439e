package xid

import "bytes"

// parsePCIe reads what follows "pcieport " or "nvidia ": the kernel's PCIe
// error reports (drivers/pci/pcie/aer.c, err.c and dpc.c), whose wording has
// changed over the years.
//
//	<reporter>: AER: [Multiple ]Uncorrect… (Fatal) error [message ]received[:| from] <source>
//	<reporter>: [AER: ]PCIe Bus Error: severity=Uncorrect… (Non-Fatal), …
//	<reporter>: [AER: ]   [ 5] Surprise Down Error    (First)
//	<reporter>: [AER: ]device has no AER-aware driver
//
// PCI is the device to which the report attributes the error: the source if
// the line gives one, else the reporter. A report spans several records, and
// each counts: whoever folds them merges by device and time.
func parsePCIe(rest []byte) (Line, bool) {
	reporter, rest, ok := cutAddress(rest)
	if !ok {
		return Line{}, false
	}
	if rest, ok = cut(rest, ": "); !ok {
		return Line{}, false
	}
	message := cutBlanks(rest)
	body, ok := cut(message, "AER: ")
	if ok {
		body = cutBlanks(body)
	}
	line := Line{Kind: PCIe}
	source := reporter
	if tail, ok := cut(body, "PCIe Bus Error: severity="); ok {
		if line.Severity, _, ok = cutSeverity(tail); !ok {
			return Line{}, false
		}
	} else if tail, ok := cutReport(body); ok {
		if line.Severity, tail, ok = cutSeverity(tail); !ok {
			return Line{}, false
		}
		if source, ok = errorSource(reporter, tail); !ok {
			return Line{}, false
		}
	} else if !isErrorBit(body) && !isRecoveryFailure(body) {
		return Line{}, false
	}
	line.PCI = source.String()
	line.Text = printable(message)
	return line, true
}

// cutReport takes "Multiple " where an error report begins.
func cutReport(b []byte) ([]byte, bool) {
	rest, _ := cut(b, "Multiple ")
	_, uncorrected := cut(rest, "Uncorrect")
	_, corrected := cut(rest, "Correct")
	return rest, uncorrected || corrected
}

// severities are the kernel's words, 2018 and today, and ours.
var severities = [...]struct{ kernel, ours string }{
	{"Uncorrectable (Fatal)", "Fatal"},
	{"Uncorrected (Fatal)", "Fatal"},
	{"Uncorrectable (Non-Fatal)", "Non-fatal"},
	{"Uncorrected (Non-Fatal)", "Non-fatal"},
	{"Correctable", "Correctable"},
	{"Corrected", "Correctable"},
}

func cutSeverity(b []byte) (string, []byte, bool) {
	for _, s := range severities {
		if rest, ok := cut(b, s.kernel); ok {
			return s.ours, rest, true
		}
	}
	return "", b, false
}

// errorSource reads " error [message ]received[:| from] <address>", or the
// "received: id=0010" of kernels before 4.18, a requester ID.
func errorSource(reporter address, b []byte) (address, bool) {
	rest, ok := cut(b, " error ")
	if !ok {
		return address{}, false
	}
	rest, _ = cut(rest, "message ")
	rest, ok = cut(rest, "received")
	if !ok {
		return address{}, false
	}
	if tail, ok := cut(rest, ": id="); ok {
		if id, _, ok := cutHex(tail, 4, 4); ok {
			return requester(reporter.domain, id), true
		}
		return reporter, true
	}
	for _, word := range []string{" from ", ": "} {
		if tail, ok := cut(rest, word); ok {
			if source, _, ok := cutAddress(tail); ok {
				return source, true
			}
		}
	}
	return reporter, true
}

// isErrorBit reads one bit of the status register, "[ 5] Surprise Down Error".
func isErrorBit(b []byte) bool {
	rest, ok := cut(b, "[")
	if !ok {
		return false
	}
	_, rest, ok = cutDecimal(cutBlanks(rest), 2)
	return ok && bytes.HasPrefix(rest, []byte("] "))
}

// isRecoveryFailure reads the kernel's words for a device that it could not
// bring back, or cut off.
func isRecoveryFailure(b []byte) bool {
	for _, words := range []string{
		"device has no AER-aware driver",
		"can't recover (no error_detected callback)",
		"device recovery failed",
		"DPC: containment event",
	} {
		if _, ok := cut(b, words); ok {
			return true
		}
	}
	return false
}
