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
	switch line.Kind {
	case Init:
		switch {
		case line.Minor != nil:
			return detail
		case strings.HasPrefix(line.Text, initText):
			return opening
		}
	case PCIe:
		body := strings.TrimLeft(strings.TrimPrefix(line.Text, "AER: "), " ")
		switch {
		case strings.HasPrefix(body, "["), strings.HasPrefix(body, "aer_"):
			return detail
		case strings.HasPrefix(body, "PCIe Bus Error: "):
			return summary
		case strings.Contains(body, " received"), strings.HasPrefix(body, "PCIe error, device_id: "):
			return opening
		}
	}
	return single
}
