package xid

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryEmbeddedRowLoads(t *testing.T) {
	if n := len(All()); n != 176 {
		t.Errorf("%d Xids, want 176", n)
	}
	if n := len(AllSwitch()); n != 367 {
		t.Errorf("%d SXids, want 367", n)
	}
	if n := len(NVLinkRules()); n != 95 {
		t.Errorf("%d NVLink rules, want 95", n)
	}
}

func TestXidCatalogueUsesTheContractsWords(t *testing.T) {
	categories := []string{"user-app", "software", "driver", "hardware", "link", "other"}
	buckets := []string{
		"RESTART_APP", "IGNORE", "IGNORE?", "CONTACT_SUPPORT", "CONTACT_SUPPORT(unused)", "UNSPECIFIED", "MONITOR?", "CONTACT_SUPPORT?",
		"REBOOT/ENABLE_ECC?", "RESET_GPU", "RESTART_BM", "RESTART_VM", "WORKFLOW_XID_48", "FOLLOW_XID_48", "WORKFLOW_NVLINK_ERR",
		"WORKFLOW_NVLINK5_ERR", "WORKFLOW_XID_45", "FOLLOW_XID_154_TEXT", "CHECK_MECHANICALS", "UPDATE_SWFW", "CHECK_UVM",
	}
	for i, entry := range All() {
		if entry.Code != i+1 {
			t.Errorf("row %d is Xid %d", i+1, entry.Code)
		}
		if entry.Name == "" || entry.Source == "" || entry.FatalTo == "" {
			t.Errorf("Xid %d lacks name, source or scope: %+v", entry.Code, entry)
		}
		if !slices.Contains(categories, entry.Category) || !slices.Contains(buckets, entry.Bucket) {
			t.Errorf("Xid %d: category %q, bucket %q", entry.Code, entry.Category, entry.Bucket)
		}
	}
}

func TestCommonXidsHaveAMeaning(t *testing.T) {
	codes := []int{
		13, 31, 32, 38, 43, 44, 45, 48, 54, 61, 62, 63, 64, 68, 69, 74, 78, 79, 92, 94, 95, 109, 110, 119, 120, 121, 137, 140, 143,
		144, 145, 146, 147, 148, 149, 150, 151, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172,
	}
	for _, code := range codes {
		if entry, ok := Lookup(code); !ok || entry.Meaning == "" {
			t.Errorf("Xid %d: no meaning", code)
		}
	}
}

func TestLookup(t *testing.T) {
	want := Entry{
		Code: 79, Name: "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS", Meaning: "GPU has fallen off the bus",
		Category: "hardware", Bucket: "RESTART_BM", FatalTo: "device", Investigatory: "CONTACT_SUPPORT",
		Since:  "CUDA 12.7; GPU driver R565",
		Source: "NVIDIA Xid catalogue 2025-09-30; nverror.h 595.45.04",
	}
	got, ok := Lookup(79)
	if !ok {
		t.Fatal("Xid 79 is unknown")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Xid 79 (-want +got):\n%s", diff)
	}
	for _, code := range []int{-1, 0, 177, 999} {
		if entry, ok := Lookup(code); ok {
			t.Errorf("Xid %d: %+v", code, entry)
		}
	}
	fatal, ok := LookupSwitch(11001)
	if !ok || fatal.Name != "HW_NPORT_INGRESS_CMDDECODEERR" || fatal.Class != "fatal(partition)" {
		t.Errorf("SXid 11001: %+v", fatal)
	}
	if entry, ok := LookupSwitch(9999); ok {
		t.Errorf("SXid 9999: %+v", entry)
	}
}

func TestSwitchCatalogueIsSorted(t *testing.T) {
	if !slices.IsSortedFunc(AllSwitch(), func(a, b SwitchEntry) int { return a.Code - b.Code }) {
		t.Error("rows out of order: LookupSwitch needs them by code")
	}
	for _, entry := range AllSwitch() {
		if got, ok := LookupSwitch(entry.Code); !ok || got != entry {
			t.Errorf("SXid %d: %+v", entry.Code, got)
		}
	}
}

func TestTablesAreTheCallersToChange(t *testing.T) {
	All()[78].Name = "changed"
	if entry, _ := Lookup(79); entry.Name == "changed" {
		t.Error("All gives the catalogue itself")
	}
}
