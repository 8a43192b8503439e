package xid

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReadsEveryField(t *testing.T) {
	tests := []struct {
		text string
		want Line
	}{
		{
			"NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 10 (FREE) (0xa55a0210 0x0).",
			Line{
				Kind: Xid, Code: 119, PCI: "0000:9b:00.0", PID: new(2024380), Process: "nvidia-smi",
				Text: "Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 10 (FREE) (0xa55a0210 0x0).",
			},
		},
		{
			"NVRM: Xid (PCI:0002:00:00): 119, pid=1582259, name=nvc:[driver], Timeout",
			Line{Kind: Xid, Code: 119, PCI: "0002:00:00.0", PID: new(1582259), Process: "nvc:[driver]", Text: "Timeout"},
		},
		{
			"NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
			Line{Kind: Xid, Code: 79, PCI: "0000:05:00.0", Text: "GPU has fallen off the bus."},
		},
		{
			"NVRM: Xid (PCI:0000:09:00): 79, pid=0, GPU has fallen off the bus.",
			Line{Kind: Xid, Code: 79, PCI: "0000:09:00.0", PID: new(0), Text: "GPU has fallen off the bus."},
		},
		{
			"NVRM: Xid (PCI:0000:b3:00.0): 79, pid=1234, name=nv-hostengine",
			Line{Kind: Xid, Code: 79, PCI: "0000:b3:00.0", PID: new(1234), Process: "nv-hostengine"},
		},
		{
			"NVRM: Xid (PCI:0000:63:00): 31, name=plasmashell, MMU Fault: ENGINE GR_HOST0",
			Line{Kind: Xid, Code: 31, PCI: "0000:63:00.0", Process: "plasmashell", Text: "MMU Fault: ENGINE GR_HOST0"},
		},
		{
			"NVRM: Xid (PCI:0000:3f:00): 46",
			Line{Kind: Xid, Code: 46, PCI: "0000:3f:00.0"},
		},
		{
			"NVRM: Xid (PCI:0000:66:00): 999, pid=1234, name=test, ",
			Line{Kind: Xid, Code: 999, PCI: "0000:66:00.0", PID: new(1234), Process: "test"},
		},
		{
			"NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). RST: No, D-RST: No",
			Line{
				Kind: Xid, Code: 94, PCI: "0000:01:00.0", GPUInstance: new(5), PID: new(7194),
				Text: "Contained: CE User Channel (0x9). RST: No, D-RST: No",
			},
		},
		{
			"NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 13, pid=9, name=a, Graphics Exception",
			Line{
				Kind: Xid, Code: 13, PCI: "0000:3b:00.0", GPUInstance: new(1), ComputeInstance: new(2),
				PID: new(9), Process: "a", Text: "Graphics Exception",
			},
		},
		{
			"NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149",
			Line{
				Kind: Xid, Code: 45, PCI: "0000:dc:00.0", PID: new(1818990), Process: "python3",
				Text: "Ch 00000001 caused by previous Xid 149", CausedBy: 149,
			},
		},
		{
			"NVRM: Xid (PCI:0000:01:00): 109, pid=1, name=sh, Ch 00000076, errorString CTX SWITCH TIMEOUT, Info 0x3c046",
			Line{
				Kind: Xid, Code: 109, PCI: "0000:01:00.0", PID: new(1), Process: "sh",
				Text: "Ch 00000076, errorString CTX SWITCH TIMEOUT, Info 0x3c046",
			},
		},
		{
			"NVRM: Xid (PCI:0019:01:00): 154, GPU recovery action changed from 0x4 (Drain and Reset) to 0x1 (GPU Reset Required)",
			Line{
				Kind: Xid, Code: 154, PCI: "0019:01:00.0", Action: &Action{From: 4, To: 1},
				Text: "GPU recovery action changed from 0x4 (Drain and Reset) to 0x1 (GPU Reset Required)",
			},
		},
		{
			"NVRM: Xid (PCI:0000:3b:00): 154, pid=7, name=nvidia-smi, GPU recovery action changed from 0x0 (None) to 0x5 (Recover IMEX Domain)",
			Line{
				Kind: Xid, Code: 154, PCI: "0000:3b:00.0", PID: new(7), Process: "nvidia-smi", Action: &Action{From: 0, To: 5},
				Text: "GPU recovery action changed from 0x0 (None) to 0x5 (Recover IMEX Domain)",
			},
		},
		{
			"NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 0x00000001 0x00000000 0x00000000 0x00000000)",
			Line{
				Kind: Xid, Code: 149, PCI: "0018:01:00.0", Severity: "Fatal",
				Text:   "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 0x00000001 0x00000000 0x00000000 0x00000000)",
				NVLink: &NVLink{Unit: "NETIR_LINK_EVT", Fatal: true, Link: 9, InterruptInfo: 0x025525c6, Debug: []uint32{1, 0, 0, 0}},
			},
		},
		{
			"NVRM: Xid (PCI:0000:01:00): 145, pid=12, name=a, b, RLW_REMAP Nonfatal XC1 i1 Link -1 (0x00000004 0x00000001)",
			Line{
				Kind: Xid, Code: 145, PCI: "0000:01:00.0", PID: new(12), Process: "a, b", Severity: "Non-fatal",
				Text:   "RLW_REMAP Nonfatal XC1 i1 Link -1 (0x00000004 0x00000001)",
				NVLink: &NVLink{Unit: "RLW_REMAP", CrossContain: true, Injected: true, Link: -1, InterruptInfo: 4, ErrorStatus: 1},
			},
		},
		{
			"NVRM: Xid (PCI:0000:04:00): 146, TLW_RX/TLW_RX_PIPE0 Nonfatal XC0 i0 Link 00 (0x0000000a 0x00000001 0x00000002 0x00000003)",
			Line{
				Kind: Xid, Code: 146, PCI: "0000:04:00.0", Severity: "Non-fatal",
				Text:   "TLW_RX/TLW_RX_PIPE0 Nonfatal XC0 i0 Link 00 (0x0000000a 0x00000001 0x00000002 0x00000003)",
				NVLink: &NVLink{Unit: "TLW_RX/TLW_RX_PIPE0", InterruptInfo: 10, ErrorStatus: 1, Debug: []uint32{2, 3}},
			},
		},
		{
			"NVRM: Xid (PCI:0000:04:00): 150, MSE Degraded Fatal XC0 i0 Link 00 (0x00000000 0xFFFFFFFF)",
			Line{
				Kind: Xid, Code: 150, PCI: "0000:04:00.0", Severity: "Fatal",
				Text:   "MSE Degraded Fatal XC0 i0 Link 00 (0x00000000 0xFFFFFFFF)",
				NVLink: &NVLink{Unit: "MSE Degraded", Fatal: true, ErrorStatus: 0xffffffff},
			},
		},
		{
			"NVRM: Xid (PCI:0000:04:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x0000000a",
			Line{Kind: Xid, Code: 149, PCI: "0000:04:00.0", Text: "NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x0000000a"},
		},
		{
			"nvidia-nvswitch0: SXid (PCI:0000:06:00.0): 20009, Non-fatal, Link 04 RX Short Error Rate",
			Line{
				Kind: SXid, Code: 20009, PCI: "0000:06:00.0", Switch: "nvidia-nvswitch0", Severity: "Non-fatal", Port: new(4),
				Text: "Non-fatal, Link 04 RX Short Error Rate",
			},
		},
		{
			"nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 10003, Fatal, unhandled interrupt in nvswitch_host(3)",
			Line{
				Kind: SXid, Code: 10003, PCI: "0000:c1:00.0", Switch: "nvidia-nvswitch3", Severity: "Fatal",
				Text: "Fatal, unhandled interrupt in nvswitch_host(3)",
			},
		},
		{
			"nvidia-nvswitch0: SXid (PCI:0004:00:00.0): 26006, SOE HALTED",
			Line{Kind: SXid, Code: 26006, PCI: "0004:00:00.0", Switch: "nvidia-nvswitch0", Text: "SOE HALTED"},
		},
		{
			"NVRM: GPU 0000:a1:00.0: GPU has fallen off the bus.",
			Line{Kind: Lost, PCI: "0000:a1:00.0", Text: "GPU has fallen off the bus."},
		},
		{
			"NVRM: GPU at 0000:a1:00.0 has fallen off the bus.",
			Line{Kind: Lost, PCI: "0000:a1:00.0", Text: "has fallen off the bus."},
		},
		{
			"NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system has\nNVRM: fallen off the bus and is not responding to commands.",
			Line{
				Kind: Lost, PCI: "0000:b3:00.0",
				Text: "The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this system has fallen off the bus and is not responding to commands.",
			},
		},
		{
			"NVRM: GPU 0000:98:00.0: RmInitAdapter failed! (0x62:0x65:1792)",
			Line{Kind: Init, PCI: "0000:98:00.0", Text: "RmInitAdapter failed! (0x62:0x65:1792)"},
		},
		{
			"NVRM: GPU0 RmInitAdapter: Cannot initialize GSP firmware RM",
			Line{Kind: Init, Text: "GPU0 RmInitAdapter: Cannot initialize GSP firmware RM"},
		},
		{
			"NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:3b:00 (printing 1 of every 30).  The GPU likely needs to be reset.",
			Line{
				Kind: Hang, PCI: "0000:3b:00.0",
				Text: "Rate limiting GSP RPC error prints for GPU at PCI:0000:3b:00 (printing 1 of every 30).  The GPU likely needs to be reset.",
			},
		},
		{
			"pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error received: id=0218",
			Line{Kind: PCIe, PCI: "0000:02:03.0", Severity: "Fatal", Text: "AER: Uncorrected (Fatal) error received: id=0218"},
		},
		{
			"pcieport 0000:00:01.2: AER: Uncorrectable (Non-Fatal) error received from 0000:63:00.0",
			Line{
				Kind: PCIe, PCI: "0000:63:00.0", Severity: "Non-fatal",
				Text: "AER: Uncorrectable (Non-Fatal) error received from 0000:63:00.0",
			},
		},
		{
			"pcieport 0000:80:1b.4: AER: Multiple Correctable error message received from 0000:81:00.0",
			Line{
				Kind: PCIe, PCI: "0000:81:00.0", Severity: "Correctable",
				Text: "AER: Multiple Correctable error message received from 0000:81:00.0",
			},
		},
		{
			"pcieport 0000:00:02.0:    [ 5] Surprise Down Error    (First)",
			Line{Kind: PCIe, PCI: "0000:00:02.0", Text: "[ 5] Surprise Down Error    (First)"},
		},
		{
			"nvidia 0000:02:00.0: device has no AER-aware driver",
			Line{Kind: PCIe, PCI: "0000:02:00.0", Text: "device has no AER-aware driver"},
		},
	}
	for _, test := range tests {
		got, ok := Parse([]byte(test.text))
		if !ok {
			t.Errorf("no event from %q", test.text)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.text, diff)
		}
	}
}

func TestAddressHasOneForm(t *testing.T) {
	for text, want := range map[string]string{
		"0000:3b:00":     "0000:3b:00.0",
		"0000:3B:00.1":   "0000:3b:00.1",
		"00000000:3b:00": "0000:3b:00.0",
		"00010000:3b:1f": "10000:3b:1f.0",
		"10000:3b:00":    "10000:3b:00.0",
		"000f:01:00":     "000f:01:00.0",
	} {
		line, ok := Parse([]byte("NVRM: Xid (PCI:" + text + "): 79, x"))
		if !ok || line.PCI != want {
			t.Errorf("%s is %q, want %q", text, line.PCI, want)
		}
	}
	for _, text := range []string{"", "3b:00", "000:3b:00", "000000000:3b:00", "0000:3b", "0000:3b:20", "0000:3b:00.8", "0000:3b:00.", "0000:3b:000", "0000-3b-00"} {
		if line, ok := Parse([]byte("NVRM: Xid (PCI:" + text + "): 79, x")); ok {
			t.Errorf("address %q is taken: %+v", text, line)
		}
	}
}

func TestNameLongerThanAnyComm(t *testing.T) {
	for text, want := range map[string]Line{
		"name=a-process-in-a-guest, Ch 00000008": {Process: "a-process-in-a-guest", Text: "Ch 00000008"},
		"name=a-process-in-a-guest":              {Text: "name=a-process-in-a-guest"},
	} {
		want.Kind, want.Code, want.PCI = Xid, 43, "0000:01:00.0"
		got, _ := Parse([]byte("NVRM: Xid (PCI:0000:01:00): 43, " + text))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestUnknownPIDIsLeftInTheText(t *testing.T) {
	for _, text := range []string{"pid=, x", "pid=-1, x", "pid='<unknown>'x", "pid=12345678901, x", "pid=12x, x"} {
		got, _ := Parse([]byte("NVRM: Xid (PCI:0000:01:00): 43, " + text))
		if got.PID != nil || got.Text != text {
			t.Errorf("%q gives pid %v, text %q", text, got.PID, got.Text)
		}
	}
}

func TestMalformedMessagesAreEventsWithoutDetails(t *testing.T) {
	for _, text := range []string{
		"45, Ch 00000001 caused by previous Xid", "45, Ch 00000001 caused by previous Xid x", "45, Ch 00000001 caused by previous Xid 79 or so",
		"43, Ch 00000001 caused by previous Xid 149",
		"154, GPU recovery action", "154, GPU recovery action changed from 0x", "154, GPU recovery action changed from 0x1 (GPU Reset Required)",
		"154, GPU recovery action changed from 0x1 (None) to 0xx", "153, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
		"145, ", "145, Fatal XC0 i0 Link 00 (0x1 0x1)", "145, A B C Fatal XC0 i0 Link 00 (0x1 0x1)", "145, A- Fatal XC0 i0 Link 00 (0x1 0x1)",
		"145, A fatal XC0 i0 Link 00 (0x1 0x1)", "145, A Fatal XC2 i0 Link 00 (0x1 0x1)", "145, A Fatal XC0 i Link 00 (0x1 0x1)",
		"145, A Fatal XC0 i0 Lane 00 (0x1 0x1)", "145, A Fatal XC0 i0 Link xx (0x1 0x1)", "145, A Fatal XC0 i0 Link 00 0x1 0x1",
		"145, A Fatal XC0 i0 Link 00 (0x1)", "145, A Fatal XC0 i0 Link 00 (0x1 1)", "145, A Fatal XC0 i0 Link 00 (0x1 0x123456789)",
		"145, A Fatal XC0 i0 Link 00 (0x1 0x1) and more", "145, A Fatal XC0 i0 Link 00 (0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8)",
		"143, A Fatal XC0 i0 Link 00 (0x1 0x1)", "151, A Fatal XC0 i0 Link 00 (0x1 0x1)",
	} {
		got, ok := Parse([]byte("NVRM: Xid (PCI:0000:01:00): " + text))
		if !ok || got.CausedBy != 0 || got.Action != nil || got.NVLink != nil || got.Severity != "" {
			t.Errorf("%q: %v, %+v", text, ok, got)
		}
	}
}

func TestMalformedLinesAreNoEvents(t *testing.T) {
	for _, text := range []string{
		"", "N", "NVRM: ", "NVRM: Xid (PCI:", "NVRM: Xid (PCI:0000:01:00)", "NVRM: Xid (PCI:0000:01:00): ",
		"NVRM: Xid (PCI:0000:01:00): 79x", "NVRM: Xid (PCI:0000:01:00): 1234567", "NVRM: Xid (PCI:0000:01:00): -1",
		"NVRM: Xid (PCI:0000:01:00 GPU-I:): 13, x", "NVRM: Xid (PCI:0000:01:00 GPU-X:1): 13, x",
		" NVRM: Xid (PCI:0000:01:00): 79, x", "python: NVRM: Xid (PCI:0000:01:00): 79, x",
		"a\nNVRM: Xid (PCI:0000:01:00): 79, x",
		"nvidia-nvswitch: SXid (PCI:0000:01:00.0): 20034, x", "nvidia-nvswitch0: SXid (PCI:0000:01:00.0): , x",
		"NVRM: GPU 0000:a1:00.0: GPU is fine.", "NVRM: GPU at 0000:a1:00.0: GPU-123", "NVRM: The NVIDIA GPU 0000:b3:00.0",
		"NVRM: The NVIDIA probe routine failed for some", "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:?",
		"NVRM: a b: GSP RM heartbeat timed out", "NVRM: knvlinkDiscoverPostRxDetLinks: Getting peer1",
		"NVRM: The NVIDIA GPU ?\nNVRM: (PCI ID: x) fallen off the bus and is not responding to commands",
		"NVRM: knvlinkDiscoverPostRxDetLinks: nothing", "NVRM: knvlinkDiscoverPostRxDetLinks: Getting peerX postRxDetLinkMask failed!",
		"pcieport 0000:00:02.0: AER: Correctable error counted", "nvidia-nvswitch0: open", "nvidia-nvswitch0: SXid (PCI:0000:01:00.0",
		"pcieport 0000:00:02.0", "pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error", "pcieport 0000:00:02.0: AER: enabled",
		"NVRM: API mismatch: the client 'a", "NVRM: API mismatch: the client 'a' (pid )", "NVRM: API mismatch: the client 'a' (pid 1",
		"NVRM: API mismatch: the client 'a name of more than 15 bytes' (pid 1)",
		"pciehp 0000:00:1c.4: Slot(1): Link Down", "pciehp 0000:00:1c.4:pcie04: Slot(1)", "pciehp 0000:00:1c.4:pcie04: Link Down",
		"pcieport 0000:60:01.0: pciehp: Slot(5): Link Up", "pcieport 0000:60:01.0: pciehp: Slot(5", "pcieport 0000:60:01.0: Slot(5): Link Down",
		"nvidia-peermem", "nvidia-peermem f:x ERROR y", "nvidia-peermem a b:1 ERROR y", "nvidia-uvm: x] y", "nvidia-uvm: Loaded the UVM driver, major device number 237.",
		"nvidia-nvswitch0 Interrupts disabled to avoid a storm", "nvidia-nvswitch: Probing device 0000:06:00.0, Vendor Id = 0x10de", "pci 0000:01:00.0: [10de:2330] type 00",
		"INFO: task nvidia-smi:1 blocked for more than 120 seconds.", "watchdog: BUG: soft lockup - CPU#7 stuck for 23s! [nvidia-smi:1]",
		"pcieport 0000:00:02.0: PCIe Bus Error: severity=?", "pcieport : AER: Correctable error received: 0000:00:00.0",
	} {
		if line, ok := Parse([]byte(text)); ok {
			t.Errorf("event from %q: %+v", text, line)
		} else if diff := cmp.Diff(Line{}, line); diff != "" {
			t.Errorf("%q: not the zero Line:\n%s", text, diff)
		}
	}
}

func TestTextIsBoundedAndSafeToShow(t *testing.T) {
	line, ok := Parse([]byte("NVRM: Xid (PCI:0000:01:00): 13, pid=1, name=\x1b[31m\xff\n\u202eb, x" + strings.Repeat("ä", 2000)))
	if !ok {
		t.Fatal("no event")
	}
	if want := "?[31m? ?b"; line.Process != want {
		t.Errorf("process %q, want %q", line.Process, want)
	}
	if want := "x" + strings.Repeat("ä", 511); line.Text != want {
		t.Errorf("text has %d bytes, ends in %q", len(line.Text), line.Text[len(line.Text)-4:])
	}
}

func TestRejectingALineAllocatesNothing(t *testing.T) {
	var joiner Joiner
	for _, text := range otherLines {
		text := []byte(text)
		if n := testing.AllocsPerRun(100, func() { Parse(text) }); n > 0 {
			t.Errorf("Parse of %q allocates %v times", text, n)
		}
		if n := testing.AllocsPerRun(100, func() { joiner.Next(text) }); n > 0 {
			t.Errorf("Next of %q allocates %v times", text, n)
		}
	}
}

// otherLines are what a kernel log holds beside our events.
var otherLines = []string{
	"audit: type=1400 audit(1760000000.123:456): apparmor=\"DENIED\" operation=\"open\" profile=\"x\" pid=1 comm=\"python3\"",
	"eth0: renamed from veth1234abc",
	"nvme nvme0: 8/0/0 default/read/poll queues",
	"nvidia-nvswitch2: open (major=510)",
	"nvidia-nvswitch2: SXid (PCI:0000:07:00.0): 20034, Severity 1 Engine instance 60 Sub-engine instance 00",
	"NVRM: GPU0 kgmmuInvalidateTlb_GM107: TLB invalidation failed waiting for prior invalidate (status=0x0000000f)",
	"NVRM: GPU 0000:91:00.0: GPU serial number is 1653723052734.",
	"NVRM: Xid (invalid): some error",
	"pcieport 0000:00:1d.0: PME: Signaling with IRQ 122",
	"pcieport 0000:00:1d.0:   device [8086:a298] error status/mask=00000001/00002000",
	"INFO: task nvidia-smi:1234 blocked for more than 120 seconds.",
	" ? _nv052958rm+0x2cc/0x360 [nvidia]",
	" schedule+0x69/0x110",
	" </TASK>",
	"{1}[Hardware Error]: event severity: corrected",
	"pcieport 0000:60:01.0: pciehp: Slot(5): Card present",
	"nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
	"NVRM: nvAssertOkFailedNoLog: Assertion failed: GPU lost from the bus [NV_ERR_GPU_IS_LOST] (0x0000000F) returned from rmStatus @ kernel_ce_gv100.c:106",
	"",
}

func BenchmarkOtherLine(b *testing.B) {
	lines := make([][]byte, 0, len(otherLines))
	for _, text := range otherLines {
		lines = append(lines, []byte(text))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Parse(lines[i%len(lines)])
	}
}

// Behind a watchdog's line each record may be the one that completes the event.
func BenchmarkOtherLineOfALog(b *testing.B) {
	lines := make([][]byte, 0, len(otherLines))
	for _, text := range otherLines {
		lines = append(lines, []byte(text))
	}
	var joiner Joiner
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		joiner.Next(lines[i%len(lines)])
	}
}

func BenchmarkXidLine(b *testing.B) {
	text := []byte("NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 45, pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149")
	b.ReportAllocs()
	for b.Loop() {
		Parse(text)
	}
}

func BenchmarkNVLink(b *testing.B) {
	text := []byte("NVRM: Xid (PCI:0019:01:00): 145, pid=12, name=python3, RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x00000000 0x00000000 0x00000000 0x00000000)")
	b.ReportAllocs()
	for b.Loop() {
		line, _ := Parse(text)
		line.NVLink.Decode(line.Code, 570)
	}
}
