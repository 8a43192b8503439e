//go:build cgo

// Package worker is the worker's side of the door to NVML: the only code that
// calls the driver's library. See package wire for what it answers to.
//
// The library is loaded at run time and may be older than the header that this
// package was built with. A function that it lacks would end the process with
// exit code 127 at its first call, past every recover, so each function is
// looked up before it is called, and one that is missing counts as a value that
// the driver cannot give. For the same reason nothing is called after an
// initialisation that failed, and the binary must bind its symbols lazily: a
// link with -z now ends it before main.
//
// Facts about NVML that are not cited otherwise are from nvml.h 13.4.
package worker
