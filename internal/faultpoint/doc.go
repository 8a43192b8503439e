// Package faultpoint names the instants at which a crash must do no harm.
//
// Code that changes files calls [Hit] between two steps. In the shipped binary
// Hit is empty and disappears when it is inlined: nobody can make a node's
// daemon kill itself through its environment. Built with the tag faultpoints,
// the process kills itself with SIGKILL at the point named by
// GPUVET_FAULTPOINT, so that no deferred call, signal handler or buffered
// write can tidy up first, as none does when a node dies.
//
// GPUVET_FAULTPOINT is a name, or name:N for the Nth time it is reached.
package faultpoint
