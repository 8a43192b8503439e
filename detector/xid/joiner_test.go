package xid

import (
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
