package xid

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	lostFirst  = "NVRM: The NVIDIA GPU 0000:b3:00.0"
	lostSecond = "               NVRM: (PCI ID: 10de:26b5) installed in this system has"
	lostThird  = "               NVRM: fallen off the bus and is not responding to commands."
)

func TestJoinerMakesOneEventOfABrokenMessage(t *testing.T) {
	want, ok := Parse([]byte("NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\nNVRM: fallen off the bus and is not responding to commands."))
	if !ok {
		t.Fatal("no event from the whole record")
	}
	other := "eth0: renamed from veth0"
	tests := []struct {
		name    string
		records []string
		back    int // of the event; -1: none
	}{
		{"neighbours", []string{lostFirst, lostSecond, lostThird}, 2},
		{"records of others between", []string{lostFirst, other, lostSecond, other, other, lostThird}, 5},
		{"too far apart", []string{lostFirst, lostSecond, other, other, other, other, other, lostThird}, -1},
		{"last line missing", []string{lostFirst, lostSecond, other}, -1},
		{"second line missing", []string{lostFirst, lostThird}, -1},
		{"first line missing", []string{lostSecond, lostThird}, -1},
		{"told again from the start", []string{"NVRM: The NVIDIA GPU 0000:01:00.0", lostFirst, lostSecond, lostThird}, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var joiner Joiner
			for i, record := range test.records {
				line, back, ok := joiner.Next([]byte(record))
				if last := i == len(test.records)-1; !last || test.back < 0 {
					if ok {
						t.Fatalf("event from record %d: %+v", i, line)
					}
					continue
				}
				if !ok || back != test.back {
					t.Fatalf("event %v, %d back, want %d", ok, back, test.back)
				}
				if diff := cmp.Diff(want, line); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestJoinerPassesOtherEventsBetweenTheLines(t *testing.T) {
	var joiner Joiner
	joiner.Next([]byte(lostFirst))
	line, back, ok := joiner.Next([]byte("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."))
	if !ok || back != 0 || line.Code != 79 {
		t.Errorf("Xid 79 between the lines: %+v, %d back, %v", line, back, ok)
	}
	joiner.Next([]byte(lostSecond))
	if line, back, ok = joiner.Next([]byte(lostThird)); !ok || back != 3 || line.PCI != "0000:b3:00.0" {
		t.Errorf("joined: %+v, %d back, %v", line, back, ok)
	}
}

func TestReportIsOneEvent(t *testing.T) {
	const (
		received = "pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error received: 0000:00:02.0"
		severity = "pcieport 0000:00:02.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, (Receiver ID)"
		bit      = "pcieport 0000:00:02.0:    [ 5] Surprise Down Error    (First)"
		another  = "pcieport 0000:00:03.0:    [ 5] Surprise Down Error    (First)"
		recovery = "pcieport 0000:00:02.0: AER: device recovery failed"
		failed   = "NVRM: GPU 0000:0a:00.0: RmInitAdapter failed! (0x24:0x72:1568)"
		minor    = "NVRM: GPU 0000:0a:00.0: rm_init_adapter failed, device minor number 5"
		noName   = "NVRM: RmInitAdapter failed! (0x62:0x65:2028)"
		oldMinor = "NVRM: rm_init_adapter failed for device bearing minor number 2"
		other    = "eth0: renamed from veth0"
	)
	tests := []struct {
		name    string
		records []string
		events  []int // the records that are events
	}{
		{"in order", []string{received, severity, bit, bit}, []int{0}},
		{"without the first line", []string{severity, bit, bit}, []int{0}},
		{"a detail alone", []string{bit, bit}, []int{0}},
		{"records of others between", []string{received, other, severity, other, other, bit}, []int{0}},
		{"too far apart", []string{received, other, other, other, other, other, other, severity}, []int{0, 7}},
		{"another device", []string{received, another, severity}, []int{0, 1, 2}},
		{"the next report", []string{received, severity, bit, received, severity, bit}, []int{0, 3}},
		{"the next report, short", []string{severity, bit, severity, bit}, []int{0, 2}},
		{"what became of it", []string{received, severity, bit, recovery}, []int{0, 3}},
		{"a start that failed", []string{failed, minor, failed, minor}, []int{0, 2}},
		{"its second line alone", []string{minor}, []int{0}},
		{"a second line that says more", []string{noName, oldMinor}, []int{0, 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var joiner Joiner
			var events []int
			for i, record := range test.records {
				line, _, ok := joiner.Next([]byte(record))
				if ok {
					events = append(events, i)
				} else if diff := cmp.Diff(Line{}, line); diff != "" {
					t.Errorf("record %d is no event, but not the zero Line:\n%s", i, diff)
				}
			}
			if diff := cmp.Diff(test.events, events); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTraceEndsBeforeTheNextOne(t *testing.T) {
	const (
		head  = "INFO: task cp:9 blocked for more than 120 seconds."
		frame = " nvidia_ioctl+0x6cd/0x830 [nvidia]"
	)
	for name, test := range map[string]struct {
		between []string
		want    bool
	}{
		"at once":           {nil, true},
		"behind others":     {slices.Repeat([]string{" schedule+0x69/0x110"}, JoinDepth-2), true},
		"too far":           {slices.Repeat([]string{" schedule+0x69/0x110"}, JoinDepth-1), false},
		"behind the end":    {[]string{" </TASK>"}, false},
		"with old marks":    {[]string{" [<ffffffffa6208700>] schedule+0x35/0x80"}, true},
		"across an Xid":     {[]string{"NVRM: Xid (PCI:0000:3b:00): 119, Timeout"}, true},
		"behind a firmware": {[]string{"{1}[Hardware Error]: event severity: corrected"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var joiner Joiner
			joiner.Next([]byte(head))
			for _, record := range test.between {
				joiner.Next([]byte(record))
			}
			line, back, ok := joiner.Next([]byte(frame))
			if ok != test.want || ok && (back != len(test.between)+1 || line.Kind != Hang) {
				t.Errorf("event %v, %d back: %+v", ok, back, line)
			}
			if line, _, ok = joiner.Next([]byte(frame)); ok {
				t.Errorf("a second event: %+v", line)
			}
		})
	}
}

func TestReportsOfTheFirmwareAreToldApart(t *testing.T) {
	var joiner Joiner
	var got []string
	for _, record := range []string{
		"{1}[Hardware Error]: event severity: fatal",
		"{1}[Hardware Error]:  Error 0, type: recoverable",
		"{1}[Hardware Error]:   section_type: PCIe error",
		"{1}[Hardware Error]:   device_id: 0000:5e:00.0",
		"{1}[Hardware Error]:   vendor_id: 0x10de, device_id: 0x2330",
		"{1}[Hardware Error]:  Error 1, type: corrected",
		"{1}[Hardware Error]:   device_id: 0000:5f:00.0", // of another section
		"{1}[Hardware Error]:   section_type: PCIe error",
		"{1}[Hardware Error]:   device_id: 0000:60:00.0",
		"{2}[Hardware Error]:   device_id: 0000:61:00.0", // of another report
		"{2}[Hardware Error]: event severity: fatal",
		"{2}[Hardware Error]:   section_type: PCIe error",
		"{2}[Hardware Error]:   device_id: 0000:62:00.0",
		"{x}[Hardware Error]:   device_id: 0000:63:00.0",
		"{", "{2", "{2}", "{2}[Hardware Error]: ",
	} {
		if line, back, ok := joiner.Next([]byte(record)); ok {
			got = append(got, fmt.Sprint(line.PCI, " ", line.Severity, " ", back))
		}
	}
	if diff := cmp.Diff([]string{"0000:5e:00.0 Non-fatal 3", "0000:60:00.0 Correctable 8", "0000:62:00.0 Fatal 3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
