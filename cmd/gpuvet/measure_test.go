package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/internal/trail"
)

// shipped is the binary as it ships, run by itself and not by a test.
type shipped struct {
	t       *testing.T
	binary  string
	address string
	flags   []string
}

// ship builds it. The daemon that it starts plays eight GPUs.
func ship(t *testing.T, state string, more ...string) *shipped {
	t.Helper()
	if os.Getenv("GPUVET_MEASURE") == "" {
		t.Skip("measures, and is no test: set GPUVET_MEASURE=all, as make measure does")
	}
	dir := t.TempDir()
	s := &shipped{t: t, binary: filepath.Join(dir, "gpuvet"), address: freeAddress(t)}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	s.flags = append([]string{
		"run", "--standalone", "--fake-nvml", "../../testdata/scenarios/8xh100.yaml",
		"--listen", s.address, "--state-dir", state, "--socket", filepath.Join(dir, "s"),
	}, more...)
	return s
}

// start starts a daemon, and ends it with the test if it has not ended before.
func (s *shipped) start() *exec.Cmd {
	s.t.Helper()
	daemon := exec.Command(s.binary, s.flags...)
	if err := daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if daemon.ProcessState == nil {
			s.end(daemon)
		}
	})
	return daemon
}

func (s *shipped) end(daemon *exec.Cmd) {
	s.t.Helper()
	_ = daemon.Process.Signal(syscall.SIGTERM)
	_ = daemon.Wait()
}

// untilReady is when the daemon first says that it is ready.
func (s *shipped) untilReady() time.Time {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		response, err := http.Get("http://" + s.address + "/readyz")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return time.Now()
		}
	}
	s.t.Fatal("it is never ready")
	panic("unreachable")
}

// The memory of the shipped binary with eight GPUs and a scrape every second.
func TestMeasureMemory(t *testing.T) {
	s := ship(t, filepath.Join(t.TempDir(), "state"))
	daemon := s.start()
	s.untilReady()
	var rss []int
	var series int
	for range 30 {
		time.Sleep(time.Second)
		response, err := http.Get("http://" + s.address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		series = countSeries(t, response)
		rss = append(rss, rssAnon(t, daemon.Process.Pid))
	}
	t.Logf("%d series; RssAnon %d kB at first, %d kB at most in 30 s", series, rss[0], slices.Max(rss))
	if most := slices.Max(rss); most > 35<<10 {
		t.Errorf("RssAnon %d kB, the budget is 35 MiB", most)
	}
}

// How long a daemon takes to be ready with a trail as long as one may be.
func TestMeasureRestartWithALongTrail(t *testing.T) {
	for name, size := range map[string]int64{"no trail": 0, "a trail of 256 MiB": 256 << 20} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			s := ship(t, state)
			if size > 0 {
				records := writeTrail(t, filepath.Join(state, "trail"), size)
				t.Logf("%d records", records)
			}
			first := s.start()
			s.untilReady()
			s.end(first)
			var whole, rest []time.Duration
			var rss []int
			for range 10 {
				began := time.Now()
				daemon := s.start()
				ready := s.untilReady()
				rss = append(rss, rssAnon(t, daemon.Process.Pid))
				s.end(daemon)
				whole, rest = append(whole, ready.Sub(began)), append(rest, ready.Sub(answered(t, state)))
			}
			slices.Sort(whole)
			slices.Sort(rest)
			t.Logf("from the start to ready p50 %v, most %v; from the first answer of NVML p50 %v, most %v; RssAnon %d kB at most",
				whole[len(whole)/2], whole[len(whole)-1], rest[len(rest)/2], rest[len(rest)-1], slices.Max(rss))
			if rest[len(rest)-1] > time.Second {
				t.Error("the budget is a second from the first answer of NVML")
			}
		})
	}
}

// What storms of 10,000 Xids cost the shipped binary: a second each, half a minute
// of them without a pause.
func TestMeasureStorm(t *testing.T) {
	state, api := filepath.Join(t.TempDir(), "state"), newAPIServer(t)
	log, flags := stormFlags(t)
	s := ship(t, state, append(flags, api.flags(t)...)...)
	daemon := s.start()
	s.untilReady()
	d := &running{t: t, log: &buffer{}, socket: s.flags[slices.Index(s.flags, "--socket")+1], url: "http://" + s.address}
	d.eventually("the node is good", func() bool {
		c, _ := api.said()
		return c.Status == corev1.ConditionTrue
	})
	api.taken()
	storm := newStorm(t, log, d.pcis())
	before, spent, began := rssAnon(t, daemon.Process.Pid), cpuTime(t, daemon.Process.Pid), time.Now()
	var rss []int
	const storms = 30
	for range storms {
		storm.blow(t)
		rss = append(rss, rssAnon(t, daemon.Process.Pid))
	}
	d.eventually("all Xids are counted", func() bool { return cmp.Equal(storm.written, d.counted()) })
	took, cpu := time.Since(began), cpuTime(t, daemon.Process.Pid)-spent
	lost := d.metric("gpuvet_trail_lost_records_total")
	s.end(daemon)
	recorded, records := recordedXids(t, state)
	if diff := cmp.Diff(storm.written, recorded); diff != "" || lost != "0" {
		t.Errorf("%s records are lost, Xids in the trail (-want +got):\n%s", lost, diff)
	}
	t.Logf("%d Xids in %v, %d records of them; writes %v; %v of CPU; RssAnon %d kB before, %d kB after the first storm, %d kB at most",
		storms*stormSize, took.Round(time.Millisecond), records, api.taken(), cpu.Round(time.Millisecond), before, rss[0], slices.Max(rss))
}

// writeTrail makes a trail of a size, as a month of trouble with eight GPUs does. It
// gives the number of its records.
func writeTrail(t *testing.T, dir string, size int64) (records uint64) {
	t.Helper()
	boot, err := kmsg.BootID()
	if err != nil {
		t.Fatal(err)
	}
	history, err := trail.Open(dir, trail.Options{Boot: boot})
	if err != nil {
		t.Fatal(err)
	}
	const month = 30 * 24 * time.Hour
	for written := int64(0); written < size; records++ {
		e := detector.Event{
			ID: fmt.Sprintf("%s/%s/%d", "01234567-89ab-cdef-0123-456789abcdef", detector.SourceKernelLog, records+1), Boot: boot,
			Source: detector.SourceKernelLog, Kind: detector.KindXid, Time: time.Now().Add(-month + time.Duration(records)*5*time.Second),
			Mono: time.Duration(records+1) * 5 * time.Second, GPU: detector.Device{PCI: fmt.Sprintf("0000:%02x:00.0", 0x18+records%8), UUID: "GPU-ce653e87-f412-69f6-e1b5-953910fbbc26"},
			Xid: &detector.Report{Code: 31, PID: new(4242), Process: "python3", Text: "Ch 00000003, intr 10000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f4c_2b000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ"},
		}
		data, err := json.Marshal(detector.Entry{Event: &e, Repeats: records % 7})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := history.Append(trail.Record{ID: e.ID, Kind: string(e.Kind), Time: e.Time, Data: data}); err != nil {
			t.Fatal(err)
		}
		written += int64(len(data)) + 240 // what the trail puts around it
	}
	if err := history.Close(); err != nil {
		t.Fatal(err)
	}
	return records
}

// answered is when NVML gave its first answer to the daemon that ran last.
func answered(t *testing.T, state string) (at time.Time) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(state, "trail", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for record, err := range trail.Scan(segments[len(segments)-1]) {
		if err == nil && record.Kind == string(detector.KindDriverLoaded) {
			at = record.Time
		}
	}
	return at
}

// freeAddress is one that nothing listens on at present.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func countSeries(t *testing.T, response *http.Response) int {
	t.Helper()
	defer response.Body.Close()
	n := 0
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "#") {
			n++
		}
	}
	return n
}

func rssAnon(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "RssAnon:" {
			kilobytes, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes
		}
	}
	t.Fatal("no RssAnon")
	return 0
}
