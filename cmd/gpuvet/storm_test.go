package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/trail"
)

// stormSize is how many Xids a storm has in its second.
const stormSize = 10_000

// stormTexts are what the driver writes behind "Xid (PCI:...): ": what any process
// can bring about, and what no healthy GPU does.
var stormTexts = []string{
	"31, pid=%d, name=python3, Ch 00000003, intr 10000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted",
	"13, pid=%d, name=python3, Graphics SM Global Exception on (GPC 8, TPC 5, SM 1): Multiple Warp Errors",
	"43, pid=%d, name=pt_main_thread, Ch 00000008",
	"45, pid=%d, name=python3, Ch 0000000a",
	"48, pid=%d, name=<unknown>, An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer",
	"63, pid=%d, name=<unknown>, Row Remapper: New row (0x0000000018f31d80) marked for remapping, reset gpu to activate.",
	"94, pid=%d, name=<unknown>, Contained: SM (0x1). RST: No, D-RST: No",
	"109, pid=%d, name=python3, Ch 00000076, errorString CTX SWITCH TIMEOUT, Info 0x3c046",
	"119, pid=%d, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 10 (FREE) (0xa55a0210 0x0).",
	"79, pid=%d, name=<unknown>, GPU has fallen off the bus.",
}

// tally counts Xids by "<GPU> <code>".
type tally map[string]uint64

func (c tally) add(pci string, code int, n uint64) { c[fmt.Sprint(pci, " ", code)] += n }

// storm writes records as the kernel would, numbered from 1.
type storm struct {
	log     *os.File
	gpus    []string
	written tally
	seq     int
}

func newStorm(t *testing.T, log string, gpus []string) *storm {
	t.Helper()
	// Both ways, so that opening does not wait for the reader.
	f, err := os.OpenFile(log, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &storm{log: f, gpus: gpus, written: tally{}}
}

// blow writes a storm, evenly over a second.
func (s *storm) blow(t *testing.T) {
	t.Helper()
	const parts = 100
	tick := time.NewTicker(time.Second / parts)
	defer tick.Stop()
	for range parts {
		<-tick.C
		up, err := uptime()
		if err != nil {
			t.Fatal(err)
		}
		var lines strings.Builder
		for range stormSize / parts {
			pci, text := s.gpus[s.seq%len(s.gpus)], stormTexts[s.seq/len(s.gpus)%len(stormTexts)]
			s.seq++
			fmt.Fprintf(&lines, "4,%d,%d,-;NVRM: Xid (PCI:%s): "+text+"\n", s.seq, up.Microseconds(), strings.TrimSuffix(pci, ".0"), 1000+s.seq)
			code, err := strconv.Atoi(text[:strings.IndexByte(text, ',')])
			if err != nil {
				t.Fatal(err)
			}
			s.written.add(pci, code, 1)
		}
		if _, err := s.log.WriteString(lines.String()); err != nil {
			t.Fatal(err)
		}
	}
}

// counted are the Xids that the daemon counts.
func (d *running) counted() tally {
	d.t.Helper()
	all := tally{}
	for _, g := range d.report().Snapshot.GPUs {
		for _, x := range g.Xids {
			all.add(g.PCI, x.Code, x.Count)
		}
	}
	return all
}

// recordedXids are those that a trail tells of.
func recordedXids(t *testing.T, dir string) (all tally, records int) {
	t.Helper()
	all = tally{}
	for record, err := range trail.Scan(filepath.Join(dir, "trail")) {
		if err != nil {
			t.Fatal(err)
		}
		entry, err := detector.DecodeEntry(record.Data)
		if err != nil {
			t.Fatal(err)
		}
		if e := entry.Event; e != nil && e.Xid != nil {
			records++
			all.add(e.GPU.PCI, e.Xid.Code, 1+entry.Repeats)
		}
	}
	return all, records
}

// stormFlags are those of a daemon whose kernel log is a FIFO that a test writes.
func stormFlags(t *testing.T) (log string, flags []string) {
	t.Helper()
	if err := mayAcceptUserLines("scenario", "/dev/nvidia*"); err != nil {
		need(t, "a machine without GPUs: "+err.Error())
	}
	log = filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	return log, []string{"--kernel-log", log, "--accept-user-kernel-lines"}
}

// pcis are the addresses of the daemon's GPUs.
func (d *running) pcis() []string {
	d.t.Helper()
	var all []string
	for _, g := range d.report().Snapshot.GPUs {
		all = append(all, g.PCI)
	}
	return all
}

// A process can raise Xids by the thousand, and a GPU that dies does. None may be
// lost or crowd out what others need to see, and the cluster is told no more often
// for it.
func TestStormOfXidsIsCountedExactlyAndToldSparingly(t *testing.T) {
	api, dir := newAPIServer(t), t.TempDir()
	log, flags := stormFlags(t)
	d := startScenario(t, dir, "gpus: {count: 8, profile: h100}\n", slices.Concat(flags, api.flags(t))...)
	d.ready()
	d.eventually("the node is good", func() bool {
		c, _ := api.said()
		return c.Status == corev1.ConditionTrue
	})
	api.taken()
	s := newStorm(t, log, d.pcis())
	const storms = 2
	began := time.Now()
	var heaps []uint64
	for range storms {
		s.blow(t)
		d.eventually("all Xids are counted", func() bool { return cmp.Equal(s.written, d.counted()) })
		heaps = append(heaps, heap())
	}
	d.eventually("the node says it of all eight", func() bool {
		c, taints := api.said()
		return c.Status == corev1.ConditionFalse && strings.Contains(c.Message, s.gpus[7]) && len(taints) == 1
	})
	writes, took := api.taken(), time.Since(began)
	if grown := int64(heaps[storms-1]) - int64(heaps[0]); grown > 1<<20 {
		t.Errorf("the heap has grown by %d bytes from the first storm to the last", grown)
	}
	// Bad news goes out at once, and once a second while there is more; Events have
	// a burst of 25 and one more in ten seconds.
	most := map[string]int{"condition": 2 + int(took.Seconds()), "taint": 2 + int(took.Seconds()), "event": 26 + int(took.Seconds()/10)}
	for what, n := range writes {
		if n > most[what] {
			t.Errorf("%d writes of %s in %v, want %d at most", n, what, took, most[what])
		}
	}
	if lost := d.metric("gpuvet_trail_lost_records_total"); lost != "0" {
		t.Errorf("the trail has lost %s records", lost)
	}
	d.end()
	recorded, records := recordedXids(t, dir)
	if diff := cmp.Diff(s.written, recorded); diff != "" {
		t.Errorf("Xids in the trail (-want +got):\n%s", diff)
	}
	// About one a second for each Xid of each GPU, and a few before and after.
	if most := len(s.written) * (6 + 2*int(took.Seconds())); records > most {
		t.Errorf("%d records of %d Xids, want %d at most", records, storms*stormSize, most)
	}
	t.Logf("%d Xids, %d records, writes %v in %v, heap %v", storms*stormSize, records, writes, took, heaps)
}

// heap is what lives on the heap of this process, in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
