package xid

import "bytes"

// parsePCIe reads what follows "pcieport ", "nvidia " or "pci ": the kernel's
// PCIe error reports (drivers/pci/pcie/aer.c, err.c and dpc.c), whose wording has
// changed over the years, and the reports of hot-plug slots
// (drivers/pci/hotplug/pciehp_ctrl.c and pciehp_hpc.c).
//
//	<reporter>: AER: [Multiple ]Uncorrect… (Fatal) error [message ]received[:| from] <source>
//	<reporter>: [AER: ]PCIe Bus Error: severity=Uncorrect… (Non-Fatal), …
//	<reporter>: [AER: ]   [ 5] Surprise Down Error    (First)
//	<reporter>: [AER: ]aer_status: 0x…, aer_mask: 0x…               (reported by the firmware)
//	<reporter>: [AER: ]aer_layer=Transaction Layer, aer_agent=…
//	<reporter>: [AER: ]device has no AER-aware driver
//	<reporter>: DPC: containment event, status:0x…[, ERR_FATAL received from <source>]
//	<reporter>: pciehp: Slot(<name>): Link Down
//
// PCI is the device to which the report attributes the error: the source if
// the line gives one, else the reporter. A report spans several records, each
// of which is an event to Parse; a [Joiner] makes one of them.
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
	} else if tail, ok := cut(body, "DPC: containment event, status:0x"); ok {
		line.Severity, source = containment(reporter, tail)
	} else if tail, ok := cut(body, "pciehp: Slot("); ok {
		if line.Severity, ok = slotLoss(tail); !ok {
			return Line{}, false
		}
	} else if !isDetail(body) && !isRecoveryFailure(body) {
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

// containment reads behind "DPC: containment event, status:0x": since kernel
// 6.16 the reason and the source stand there.
func containment(reporter address, b []byte) (severity string, source address) {
	switch {
	case bytes.Contains(b, []byte("ERR_FATAL ")):
		severity = "Fatal"
	case bytes.Contains(b, []byte("ERR_NONFATAL ")):
		severity = "Non-fatal"
	}
	if _, tail, ok := bytes.Cut(b, []byte("received from ")); ok {
		if source, _, ok := cutAddress(tail); ok {
			return severity, source
		}
	}
	return severity, reporter
}

// slotLoss reads behind "Slot(" what a hot-plug slot says when the card is
// gone: Fatal, for whatever is behind that slot is off the bus. The power fault
// that may come before it is an event without severity. A link that the kernel
// brings back by itself ("Link Down/Up ignored") is none.
func slotLoss(b []byte) (severity string, ok bool) {
	_, what, ok := bytes.Cut(b, []byte("): "))
	if !ok {
		return "", false
	}
	switch string(bytes.TrimSpace(what)) {
	case "Link Down", "Link Down event", "Card not present":
		return "Fatal", true
	case "Power fault", "Power fault detected":
		return "", true
	}
	return "", false
}

// parseOldSlot reads what follows "pciehp " in kernels before 5.4:
//
//	<port>:pcie<hex>: [Ss]lot(<name>): Link Down[ event]
//	<port>:pcie<hex>: Card not present on Slot(<name>)
func parseOldSlot(rest []byte) (Line, bool) {
	port, rest, ok := cutAddress(rest)
	if !ok {
		return Line{}, false
	}
	if rest, ok = cut(rest, ":pcie"); !ok {
		return Line{}, false
	}
	if _, rest, ok = cutHex(rest, 2, 3); !ok {
		return Line{}, false
	}
	if rest, ok = cut(rest, ": "); !ok {
		return Line{}, false
	}
	line := Line{Kind: PCIe, PCI: port.String(), Severity: "Fatal", Text: printable(rest)}
	if _, ok := cut(rest, "Card not present on Slot("); ok {
		return line, true
	}
	for _, start := range []string{"Slot(", "slot("} {
		if tail, ok := cut(rest, start); ok {
			if line.Severity, ok = slotLoss(tail); ok {
				return line, true
			}
		}
	}
	return Line{}, false
}

// isDetail reports whether b is a part of a report that says no more than
// which error it was.
func isDetail(b []byte) bool {
	for _, start := range []string{"aer_status: 0x", "aer_layer="} {
		if _, ok := cut(b, start); ok {
			return true
		}
	}
	return isErrorBit(b)
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
		"subordinate device reset failed",
	} {
		if _, ok := cut(b, words); ok {
			return true
		}
	}
	return false
}
