// Package dra is the kubelet's side of the DRA driver: it prepares the claims of the
// node's pods, gives them back, and tells the kubelet how healthy their devices are.
//
// What is held by whom stands in the ledger of the detector's state, nowhere else.
// A claim is noted there, on disk, before anything is done for it, then its CDI spec
// is written, then it is noted as prepared, then the kubelet has its answer. Giving
// back goes the other way round. So whatever is cut short, by a crash, a full disk or
// a reboot, the kubelet's next call finds out how far it came and ends it: every call
// may come twice, late or not at all.
//
// What is guaranteed: no device is given to two claims; none that is known to be
// unfit is given out (see [Config] for when that is looked at); a call that fails
// leaves nothing held, and holds up no other claim. What is not: that a device stays
// fit. That is told to the kubelet as it changes, and by taints, which are published
// elsewhere.
package dra
