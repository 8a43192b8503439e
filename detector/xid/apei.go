package xid

import "bytes"

// firmwareError is the report of a PCIe error that the machine's firmware
// found, as far as it was read. The kernel prints it in a dozen records
// (drivers/firmware/efi/cper.c), with the number of the report before each:
//
//	{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1
//	{1}[Hardware Error]: event severity: recoverable
//	{1}[Hardware Error]:  Error 0, type: recoverable
//	{1}[Hardware Error]:   section_type: PCIe error
//	{1}[Hardware Error]:   device_id: 0000:5e:00.0
//
// The event is the record that names the device. Such machines report no
// error through AER; its details come behind all the same.
type firmwareError struct {
	number   int
	severity string
	pcie     bool
	first    uint64 // the record of its first line
}

func (f *firmwareError) next(text []byte, n uint64) (line Line, back int, ok bool) {
	number, rest, ok := cutDecimal(text[1:], 10)
	if !ok {
		return Line{}, 0, false
	}
	if rest, ok = cut(rest, "}[Hardware Error]: "); !ok {
		return Line{}, 0, false
	}
	if number != f.number || f.first == 0 || n-f.first >= JoinDepth {
		*f = firmwareError{number: number, first: n}
	}
	rest = cutBlanks(rest)
	if tail, ok := cut(rest, "event severity: "); ok {
		f.severity = firmwareSeverity(tail)
		return Line{}, 0, false
	}
	if tail, ok := cut(rest, "Error "); ok {
		if _, tail, ok = cutDecimal(tail, 5); ok {
			if tail, ok = cut(tail, ", type: "); ok {
				f.severity, f.pcie = firmwareSeverity(tail), false
			}
		}
		return Line{}, 0, false
	}
	if tail, ok := cut(rest, "section_type: "); ok {
		f.pcie = string(bytes.TrimSpace(tail)) == "PCIe error"
		return Line{}, 0, false
	}
	tail, ok := cut(rest, "device_id: ")
	if !ok || !f.pcie {
		return Line{}, 0, false
	}
	addr, _, ok := cutAddress(tail)
	if !ok {
		return Line{}, 0, false
	}
	line = Line{Kind: PCIe, PCI: addr.String(), Severity: f.severity, Text: "PCIe error, " + printable(rest)}
	return line, int(n - f.first), true
}

// firmwareSeverity is our word for the firmware's (cper_severity_strs).
func firmwareSeverity(word []byte) string {
	switch string(bytes.TrimSpace(word)) {
	case "fatal":
		return "Fatal"
	case "recoverable":
		return "Non-fatal"
	case "corrected":
		return "Correctable"
	}
	return ""
}
