// Package journal reads the kernel's records from systemd's journal, for nodes
// where the daemon may not open /dev/kmsg. It is an alternative to the
// Reader of package kmsg, with the same records, handler and cursor.
//
// It is compiled only with the build tag journal: it needs cgo, libsystemd's
// headers to build and libsystemd.so.0 to run.
//
// Only what journald took from the kernel's log counts (_TRANSPORT=kernel, which
// no client can set), of one boot. That a process wrote to the kernel's log is
// told by the facility, as in package kmsg.
package journal
