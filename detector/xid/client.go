package xid

import "bytes"

// parsePeerMemory reads what follows "nvidia-peermem ", the driver's side of
// RDMA (nvidia-peermem.c):
//
//	<function>:<line> ERROR <message>
//
// One of its messages is harmless and may come by the thousands: "detected
// invalid context" tells that a known fault of older drivers was avoided
// (Mellanox/nv_peer_memory#120).
func parsePeerMemory(rest []byte) (Line, bool) {
	i := bytes.IndexByte(rest, ':')
	if i <= 0 || !isUnit(rest[:i]) {
		return Line{}, false
	}
	_, rest, ok := cutDecimal(rest[i+1:], 5)
	if !ok {
		return Line{}, false
	}
	message, ok := cut(rest, " ERROR ")
	if !ok || bytes.HasPrefix(message, []byte("detected invalid context")) {
		return Line{}, false
	}
	return told(Software, message, true)
}

// parseUVM reads what follows "nvidia-uvm: " (uvm_global.c): after such an error
// no process can use unified memory until the driver is loaded again. Only
// drivers with debugging prints tell it.
//
//	<file>:<line> <function>[pid:<n>] Encountered a global fatal error: …
func parseUVM(rest []byte) (Line, bool) {
	_, message, ok := bytes.Cut(rest, []byte("] "))
	if ok {
		_, ok = cut(message, "Encountered a global fatal error: ")
	}
	return told(Recovery, message, ok)
}

// Loading reads the line that the driver prints when it is loaded, the open
// and the proprietary one alike (nv.c), and gives the driver's version, empty
// if it is not where it should be. It tells of no fault, and so Parse passes it by.
//
//	NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.195.03  …
//	NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  …
func Loading(text []byte) (version string, ok bool) {
	rest, ok := cut(text, "NVRM: loading NVIDIA UNIX ")
	if !ok {
		return "", false
	}
	for word := range bytes.FieldsSeq(rest) {
		if isVersion(word) {
			return string(word), true
		}
	}
	return "", true
}

// isVersion reports whether b is two or three numbers with dots between.
func isVersion(b []byte) bool {
	for parts := 1; ; parts++ {
		_, rest, ok := cutDecimal(b, 4)
		if !ok || parts > 3 {
			return false
		}
		if len(rest) == 0 {
			return parts > 1
		}
		if b, ok = cut(rest, "."); !ok {
			return false
		}
	}
}
