package kmsg

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// The budget is 150 ns and no allocation.
func BenchmarkOtherRecord(b *testing.B) {
	benchmarkRecord(b, "6,339,5140900,-;usb 1-1: New USB device found, idVendor=1d6b, idProduct=0002, bcdDevice= 6.18\n SUBSYSTEM=usb\n DEVICE=c189:0\n")
}

func BenchmarkRecordWithEscapes(b *testing.B) {
	benchmarkRecord(b, `6,339,5140900,-;usb 1-1:\x09New USB device found,\x0aidVendor=1d6b, idProduct=0002, bcdDevice= 6.18`+"\n SUBSYSTEM=usb\n DEVICE=c189:0\n")
}

func benchmarkRecord(b *testing.B, record string) {
	b.Helper()
	r := newReader("kmsg", "boot", Cursor{})
	found, prefix := 0, []byte("NVRM: ")
	h := Handler{
		Record: func(rec Record) {
			if bytes.HasPrefix(rec.Text, prefix) {
				found++
			}
		},
		Gap:      func(Gap) {},
		CaughtUp: func() {},
	}
	raw := []byte(record)
	b.ReportAllocs()
	for b.Loop() {
		r.counting = false // the same number again and again
		r.record(raw, &h)
	}
	if found != 0 {
		b.Fatal("the record is NVIDIA's")
	}
}

// BenchmarkBurst writes 100,000 records at full speed for each operation.
func BenchmarkBurst(b *testing.B) {
	w := openDevice(b)
	const written = 100_000
	var lost, gaps float64
	for b.Loop() {
		r := runBurst(b, w, written)
		lost += float64(r.lost)
		gaps += float64(r.gaps)
	}
	b.ReportMetric(lost/float64(b.N), "lost/op")
	b.ReportMetric(gaps/float64(b.N), "gaps/op")
	b.ReportMetric(float64(written)*float64(b.N)/b.Elapsed().Seconds(), "written/s")
}

func BenchmarkMeasureLag(b *testing.B) {
	for b.Loop() {
		if _, err := measureLag(); err != nil {
			b.Skip(err)
		}
	}
}

func BenchmarkText(b *testing.B) {
	line := "Feb 23 16:24:24 worker4 kernel: [ 1843.308145] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n"
	log := strings.Repeat(line, 1000)
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		for _, err := range TextAt(strings.NewReader(log), time.Unix(1740327864, 0)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
