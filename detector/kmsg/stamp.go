package kmsg

import (
	"bytes"
	"strings"
	"time"
)

// isoTime cuts "2025-02-23T16:24:24.435595+00:00 " and "Sun 2025-02-23
// 16:24:24 UTC ". What dmesg prints has a comma before the fraction, what
// syslog and journalctl print has not.
func (e *entry) isoTime(saved time.Time, comma bool) bool {
	rest := e.text
	weekday := len(rest) > 4 && rest[3] == ' ' && !comma
	if weekday {
		rest = rest[4:]
	}
	const seconds = len("2006-01-02T15:04:05")
	if len(rest) < seconds || rest[4] != '-' || rest[7] != '-' || rest[13] != ':' || (rest[10] != 'T' && rest[10] != ' ') {
		return false
	}
	end := bytes.IndexByte(rest[seconds:], ' ')
	if end < 0 || end > 24 {
		return false
	}
	stamp, rest := string(rest[:seconds+end]), rest[seconds+end+1:]
	if comma != strings.Contains(stamp, ",") {
		return false
	}
	layout := "2006-01-02" + stamp[10:11] + "15:04:05"
	var zone string
	if i := strings.IndexAny(stamp[seconds:], "Z+-"); i >= 0 {
		zone = stamp[seconds+i:]
		switch {
		case strings.Contains(zone, ":"), zone == "Z":
			layout += "Z07:00"
		case len(zone) == len("+00"):
			layout += "Z07"
		default:
			layout += "Z0700"
		}
	}
	if weekday && zone == "" {
		name, behind, ok := bytes.Cut(rest, []byte{' '})
		if !ok || len(name) == 0 || len(name) > 5 {
			return false
		}
		rest = behind
		// An abbreviation says something in its own zone alone; elsewhere Go
		// would make up a zone of that name at UTC.
		if n := string(name); n == "UTC" || n == "GMT" {
			saved = saved.UTC()
		}
	}
	t, err := time.ParseInLocation(layout, stamp, saved.Location())
	if err != nil {
		return false
	}
	e.time, e.text, e.headed = t, rest, true
	return true
}

// syslogTime cuts "Feb 23 16:24:24 " and "Feb  3 16:24:24.435595 ".
func (e *entry) syslogTime(saved time.Time) bool {
	colon := bytes.IndexByte(e.text[:min(len(e.text), len("Feb  3 16:"))], ':')
	if colon < 0 {
		return false
	}
	end := bytes.IndexByte(e.text[colon:], ' ')
	if end < 0 || end > len(":24:24.123456789") {
		return false
	}
	t, err := time.ParseInLocation(time.Stamp, string(e.text[:colon+end]), saved.Location())
	if err != nil {
		return false
	}
	e.time = inYear(t, saved)
	e.take(colon + end + 1)
	return true
}

// unixTime cuts the "1740327864.435595 " of journalctl's short-unix.
func (e *entry) unixTime() bool {
	end := bytes.IndexByte(e.text[:min(len(e.text), 24)], ' ')
	if end < len("1000000000.0") {
		return false
	}
	since, ok := seconds(string(e.text[:end]))
	if !ok {
		return false
	}
	e.time = time.Unix(0, int64(since))
	e.take(end + 1)
	return true
}

// inYear gives t, which has no year, the latest one that does not put it more
// than a day after the log was saved. A clock that is off by hours must not
// cost a year.
func inYear(t, saved time.Time) time.Time {
	latest := saved.AddDate(0, 0, 1)
	for year := latest.Year(); ; year-- {
		dated := time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), saved.Location())
		// A 29th of February exists in some years only.
		if dated.Month() == t.Month() && !dated.After(latest) {
			return dated
		}
	}
}

// isCtime recognises "Sun Feb 23 16:24:24 2025" by its end: the names before
// are in the language of whoever ran dmesg.
func isCtime(s string) bool {
	const tail = "16:24:24 2025"
	if len(s) <= len(tail) {
		return false
	}
	_, err := time.Parse("15:04:05 2006", s[len(s)-len(tail):])
	return err == nil
}

// seconds reads "1843.308145".
func seconds(s string) (time.Duration, bool) {
	whole, fraction, ok := strings.Cut(s, ".")
	if !ok || len(whole) > 10 || len(fraction) > 9 {
		return 0, false
	}
	fraction += "000000000"[len(fraction):]
	n, end, ok := number([]byte(whole+fraction), 0)
	if !ok || end != len(whole)+9 || whole == "" || n > 1<<62 {
		return 0, false
	}
	return time.Duration(n), true
}
