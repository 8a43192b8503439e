package xid

import "strings"

// latest is the last event that may have more records, which are no events of
// their own.
type latest struct {
	kind Kind
	pci  string
	part part
	at   uint64 // the record of its last part
}

// part is the place of a line in its report. A report's parts come in
// descending order, the last of them more than once.
type part uint8

const (
	single  part = iota // not a part of a report, or one that says something new
	detail              // which error it was; which minor number it has
	summary             // PCIe Bus Error: severity=…
	opening             // error received; RmInitAdapter failed!
)

// has reports whether line only continues the latest event. It is the latest one
// otherwise.
func (l *latest) has(line *Line, n uint64) bool {
	p := partOf(line)
	continues := p != single && line.Kind == l.kind && line.PCI == l.pci && n-l.at <= joinWithin &&
		(p < l.part || p == detail && l.part == detail)
	if continues && line.Kind == Init && line.PCI == "" && line.Minor != nil {
		continues = false // the minor number is all that names the GPU
	}
	if p != single {
		*l = latest{kind: line.Kind, pci: line.PCI, part: p, at: n}
	}
	if continues {
		*line = Line{}
	}
	return continues
}

func partOf(line *Line) part {
	body := strings.TrimLeft(strings.TrimPrefix(line.Text, "AER: "), " ")
	starts := func(text string) bool { return strings.HasPrefix(body, text) }
	switch {
	case line.Kind == Init && line.Minor != nil:
		return detail
	case line.Kind == Init && starts(initText):
		return opening
	case line.Kind != PCIe:
		return single
	case starts("["), starts("aer_"):
		return detail
	case starts("PCIe Bus Error: "):
		return summary
	case strings.Contains(body, " received"), starts("PCIe error, device_id: "):
		return opening
	}
	return single
}
