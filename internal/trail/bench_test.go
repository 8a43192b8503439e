package trail_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"gpuvet.dev/internal/trail"
)

// eventData is what an Xid event looks like.
var eventData = json.RawMessage(`{"source":"kmsg","mono":123456789012,"gpu":{"pci":"0000:3b:00.0"},"xid":{"code":79,"pid":4242,"process":"python3","text":"GPU has fallen off the bus."},"fields":{}}`)

func BenchmarkAppend(b *testing.B) {
	tr := open(b, b.TempDir(), trail.Options{Boot: "boot"})
	ids := make([]string, 1<<20)
	for i := range ids {
		ids[i] = fmt.Sprintf("8e0c1f0e-6f0f-4f0e-9a55-0a6f5bd3a4ee/kmsg/%d", i)
	}
	now := time.Now()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if added, err := tr.Append(trail.Record{ID: ids[i], Kind: "Xid", Time: now, Data: eventData}); err != nil || !added {
			b.Fatal(added, err)
		}
		i++
	}
}

func BenchmarkReadOneAtTheEnd(b *testing.B) {
	tr := open(b, b.TempDir(), trail.Options{Boot: "boot"})
	for i := range 10_000 {
		appendNew(b, tr, trail.Record{ID: fmt.Sprintf("boot/kmsg/%d", i), Kind: "Xid", Time: time.Unix(0, 0), Data: eventData})
	}
	last := tr.Last()
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range tr.Read(last - 1) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkOpenTwoFullSegments(b *testing.B) {
	folder := b.TempDir()
	tr := open(b, folder, trail.Options{Boot: "boot"})
	for i := range 16 << 20 / 330 {
		appendNew(b, tr, trail.Record{ID: fmt.Sprintf("boot/kmsg/%d", i), Kind: "Xid", Time: time.Unix(0, 0), Data: eventData})
	}
	for b.Loop() {
		open(b, folder, trail.Options{Boot: "boot"})
	}
}
