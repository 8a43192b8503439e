// Package client is the daemon's side of the door to NVML: an [nvml.Driver]
// that has worker processes do the asking, and outlives whatever happens to them.
package client
