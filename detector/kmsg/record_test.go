package kmsg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRecord(t *testing.T) {
	record := func(seq uint64, usec int64, facility, level int, text string) Record {
		return Record{Seq: seq, Mono: time.Duration(usec) * time.Microsecond, Facility: facility, Level: level, Text: []byte(text)}
	}
	for name, c := range map[string]struct {
		raw  string
		want Record
	}{
		"plain":                {"6,339,5140900,-;NET: Registered protocol family 10\n", record(339, 5140900, 0, 6, "NET: Registered protocol family 10")},
		"written by a process": {"12,2001,99999999,-;NVRM: Xid\n", record(2001, 99999999, 1, 4, "NVRM: Xid")},
		"with a dictionary":    {"7,160,424069,-;pci_root\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n", record(160, 424069, 0, 7, "pci_root")},
		"with a caller":        {"4,1,2,-,caller=T123;text\n", record(1, 2, 0, 4, "text")},
		"with unknown fields":  {"4,1,2,c,odd,more=;;text;\n", record(1, 2, 0, 4, ";text;")},
		"fragment":             {"4,1,2,c;text\n", record(1, 2, 0, 4, "text")},
		"without flags":        {"4,1,2;text\n", record(1, 2, 0, 4, "text")},
		"without newline":      {"4,1,2,-;text", record(1, 2, 0, 4, "text")},
		"empty message":        {"4,1,2,-;\n", record(1, 2, 0, 4, "")},
		"escapes":              {`4,1,2,-;a\x0ab\x09\x5c\xc3\xA9` + "\n", record(1, 2, 0, 4, "a\nb\t\\\xc3\xa9")},
		"broken escapes stay":  {`4,1,2,-;\ \x \xg0 \x0 \\x41 \x4` + "\n", record(1, 2, 0, 4, `\ \x \xg0 \x0 \A \x4`)},
		"largest numbers":      {"1023,18446744073709551599,9223372036854775,-;x\n", record(18446744073709551599, math.MaxInt64/1000, 127, 7, "x")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseRecord([]byte(c.raw))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(bytes.Equal)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestBytesWithoutHeaderAreNotARecord(t *testing.T) {
	for _, raw := range []string{
		"", "\n", "NVRM: Xid", " SUBSYSTEM=acpi\n", ",1,2,-;x", "4,,2,-;x", "4,1,,-;x", "4", "4,1", "4,1,2", "4,1,2,-", "4,1,2,", "4,1,2,-\n;x",
		"-4,1,2,-;x", "4 ,1,2,-;x", "1024,1,2,-;x", "4,18446744073709551616,2,-;x", "4,18446744073709551615,2,-;x", "4,1,9223372036854776,-;x",
		"4,1,2x,-;x",
	} {
		if rec, err := ParseRecord([]byte(raw)); !errors.Is(err, ErrNotRecord) {
			t.Errorf("%q: got %+v, %v; want ErrNotRecord", raw, rec, err)
		}
	}
}

// FuzzRecord holds the parser to the kernel's way of writing: what it escapes
// must come back, and anything else must neither panic nor grow.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("6,339,5140900,-;NET: Registered protocol family 10\n"))
	f.Add([]byte("4,1,2,-,caller=T1;NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=a\\x0ab\n SUBSYSTEM=pci\n"))
	f.Add([]byte(`4,1,2,-;\x5cx41\x`))
	f.Add([]byte("tab\tback\\slash\nnewline\x00\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if rec, err := ParseRecord(data); err == nil {
			if len(rec.Text) > len(data) || rec.Mono < 0 || rec.Level > 7 {
				t.Errorf("impossible record %+v of %q", rec, data)
			}
		}
		rec, err := ParseRecord(fmt.Appendf(nil, "4,7,8,-;%s\n KEY=value\n", escape(data)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rec.Text, data) {
			t.Errorf("got %q, want %q", rec.Text, data)
		}
	})
}

// escape does what the kernel's append_char does.
func escape(text []byte) []byte {
	var raw []byte
	for _, c := range text {
		if c < ' ' || c >= 127 || c == '\\' {
			raw = fmt.Appendf(raw, `\x%02x`, c)
		} else {
			raw = append(raw, c)
		}
	}
	return raw
}
