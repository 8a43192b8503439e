package kmsg

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// entry is one line of a saved log, taken apart.
type entry struct {
	time     time.Time
	mono     time.Duration
	facility int
	text     []byte
	headed   bool // there was a header
	foreign  bool // the header names another program than the kernel
	raw      bool // a record of /dev/kmsg
}

// parseEntry takes a line apart. What it does not know is text.
func parseEntry(line []byte, saved time.Time) entry {
	e := entry{mono: -1, facility: -1, text: line}
	if len(line) == 0 {
		return e
	}
	switch first := line[0]; {
	case first >= '0' && first <= '9':
		var h header
		if rest, ok := h.parse(line); ok {
			rec := h.record()
			e.mono, e.facility, e.headed, e.raw = rec.Mono, rec.Facility, true, true
			e.text, _ = text(rest, nil)
			return e
		}
	case first == '{':
		if e.journal(line) {
			return e
		}
	}
	e.header(saved)
	return e
}

// header cuts the parts of a header off the text, in the order in which the
// known formats have them.
func (e *entry) header(saved time.Time) {
	syslog5424 := e.priority()
	e.decodedPriority()
	switch {
	case e.bracket(saved):
		e.caller()
		e.hostAndKernel()
	case e.isoTime(saved, true):
		e.caller()
	case e.isoTime(saved, false), e.syslogTime(saved), e.unixTime():
		if e.program(syslog5424) && e.monoStamp() {
			e.caller()
		}
	default:
		rest, ok := bytes.CutPrefix(e.text, []byte("kernel: "))
		if !ok {
			return
		}
		e.text, e.headed = rest, true
		if e.monoStamp() {
			e.caller()
		}
	}
}

// priority cuts "<4>", and "<4>1 " as RFC 5424 has it.
func (e *entry) priority() (syslog5424 bool) {
	if e.text[0] != '<' {
		return false
	}
	n, end, ok := number(e.text, 1)
	if !ok || n > maxPriority || end == len(e.text) || e.text[end] != '>' {
		return false
	}
	e.take(end + 1)
	e.facility = int(n >> 3)
	if rest, ok := bytes.CutPrefix(e.text, []byte("1 ")); ok {
		e.text = rest
		return true
	}
	return false
}

// facilities and levels are the names of dmesg -x, by number.
var (
	facilities = []string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"res0", "res1", "res2", "res3", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
	levels = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}
)

// decodedPriority cuts "kern  :warn  : ".
func (e *entry) decodedPriority() {
	facility, rest, ok := bytes.Cut(e.text, []byte{':'})
	if !ok || len(facility) > 8 {
		return
	}
	level, rest, ok := bytes.Cut(rest, []byte(": "))
	if !ok || len(level) > 8 {
		return
	}
	f := slices.Index(facilities, string(bytes.TrimRight(facility, " ")))
	if f < 0 || !slices.Contains(levels, string(bytes.TrimRight(level, " "))) {
		return
	}
	e.text, e.headed, e.facility = rest, true, f
}

// bracket cuts any of dmesg's times in brackets.
func (e *entry) bracket(saved time.Time) bool {
	if e.monoStamp() {
		return true
	}
	if len(e.text) == 0 || e.text[0] != '[' {
		return false
	}
	end := bytes.IndexByte(e.text, ']')
	if end < 0 || end > 48 {
		return false
	}
	inside, _, delta := bytes.Cut(e.text[1:end], []byte{'<'})
	inside = bytes.TrimSpace(inside)
	s := string(inside)
	switch {
	case delta && s == "", s != "" && s[0] == '+':
		// Only the time since the line before: that is no time.
		if _, ok := seconds(strings.TrimPrefix(s, "+")); !ok && s != "" {
			return false
		}
	case isCtime(s):
		// In another language than English the time cannot be read.
		if t, err := time.ParseInLocation("Mon Jan _2 15:04:05 2006", s, saved.Location()); err == nil {
			e.time = t
		}
	default:
		t, err := time.ParseInLocation("Jan_2 15:04", s, saved.Location())
		if err != nil {
			return false
		}
		e.time = inYear(t, saved)
	}
	e.take(end + 1)
	e.blank()
	return true
}

// monoStamp cuts "[ 1843.308145] ", and what dmesg -d puts into it.
func (e *entry) monoStamp() bool {
	if len(e.text) == 0 || e.text[0] != '[' {
		return false
	}
	end := bytes.IndexByte(e.text, ']')
	if end < 0 || end > 48 {
		return false
	}
	inside, _, _ := bytes.Cut(e.text[1:end], []byte{'<'})
	mono, ok := seconds(string(bytes.TrimSpace(inside)))
	if !ok {
		return false
	}
	e.mono = mono
	e.take(end + 1)
	e.blank()
	return true
}

// caller cuts "[  T123] " or "[    C1] ", which CONFIG_PRINTK_CALLER adds.
func (e *entry) caller() {
	rest, ok := bytes.CutPrefix(e.text, []byte{'['})
	if !ok {
		return
	}
	inside, rest, ok := bytes.Cut(rest, []byte{']'})
	inside = bytes.TrimLeft(inside, " ")
	if !ok || len(inside) < 2 || (inside[0] != 'T' && inside[0] != 'C') {
		return
	}
	if _, end, ok := number(inside, 1); !ok || end != len(inside) {
		return
	}
	e.text = rest
	e.blank()
}

// hostAndKernel cuts the "node kernel: " of journalctl's short-monotonic.
func (e *entry) hostAndKernel() {
	host, rest, ok := bytes.Cut(e.text, []byte{' '})
	if !ok || len(host) == 0 || host[len(host)-1] == ':' {
		return
	}
	if rest, ok := bytes.CutPrefix(rest, []byte("kernel: ")); ok {
		e.text = rest
	}
}

// program cuts host and program behind a syslog time, and says whether the
// program is the kernel. Without a host, as where a time was put before the
// kernel's lines on their way here, all is message.
func (e *entry) program(syslog5424 bool) bool {
	host, rest, ok := bytes.Cut(e.text, []byte{' '})
	switch {
	case string(host) == "kernel:":
		e.text = rest
		return true
	case ok && len(host) > 0 && (host[0] == '[' || host[len(host)-1] == ':'):
		return true
	}
	kernel := "kernel: "
	if syslog5424 {
		kernel = "kernel - - - "
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(kernel)); !ok {
		e.foreign = true
		return false
	}
	e.text = rest
	return true
}

// journal takes one line of journalctl -o json.
func (e *entry) journal(line []byte) bool {
	var fields struct {
		Message   *journalField `json:"MESSAGE"`
		Transport journalField  `json:"_TRANSPORT"`
		Facility  journalField  `json:"SYSLOG_FACILITY"`
		Realtime  journalField  `json:"__REALTIME_TIMESTAMP"`
		Mono      journalField  `json:"_SOURCE_MONOTONIC_TIMESTAMP"`
	}
	if err := json.Unmarshal(line, &fields); err != nil || fields.Message == nil {
		return false
	}
	e.headed, e.text = true, []byte(*fields.Message)
	e.foreign = fields.Transport != "" && fields.Transport != "kernel"
	if f, err := strconv.ParseUint(string(fields.Facility), 10, 7); err == nil {
		e.facility = int(f)
	}
	if usec, err := strconv.ParseInt(string(fields.Realtime), 10, 64); err == nil && usec > 0 {
		e.time = time.UnixMicro(usec)
	}
	if usec, err := strconv.ParseInt(string(fields.Mono), 10, 53); err == nil && usec >= 0 {
		e.mono = time.Duration(usec) * time.Microsecond
	}
	return true
}

// journalField is a text, or, where the journal's bytes are no UTF-8, a list
// of numbers. Of a field that was given twice, a list, nothing is taken.
type journalField string

// UnmarshalJSON takes both forms.
func (f *journalField) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*f = journalField(s)
		return nil
	}
	var codes []uint16
	if json.Unmarshal(data, &codes) == nil {
		b := make([]byte, len(codes))
		for i, c := range codes {
			b[i] = byte(c)
		}
		*f = journalField(b)
	}
	return nil
}

// take cuts n bytes of header.
func (e *entry) take(n int) { e.text, e.headed = e.text[n:], true }

// blank cuts the one blank that ends a part of the header; more are the
// message's own.
func (e *entry) blank() { e.text = bytes.TrimPrefix(e.text, []byte{' '}) }
