// Package node tells the API server what the detector knows about this node:
// the node condition GPUHealthy, the taint gpuvet.dev/unhealthy, and Kubernetes
// Events about the Node.
//
// The condition and the taint are levels. The newest [detector.Snapshot] alone
// decides what they should be; they are written when the node says something
// else, put back when somebody changes them, and otherwise left alone: a
// healthy node costs one heartbeat per five minutes. Events are edges. They are
// read from the trail behind a cursor, and carry names derived from the
// incident, so that one told twice is one.
//
// Of the node's taints only the entry that the state remembers as ours is ever
// changed or removed. It is on disk before it is on the node, whatever crashes
// in between. An entry with our key that somebody else has written stays, is
// reported, and keeps ours from being written: the API allows one entry per key
// and effect.
//
// The other way round the node may ask for something: by the annotations
// gpuvet.dev/pause, gpuvet.dev/clear and gpuvet.dev/ignore, and for a pause while
// the GPU Operator has the driver unloaded.
//
// An API server that hangs, refuses or is gone delays this output and nothing
// else. What is due is written within ten seconds of its return.
//
// Rights needed: get, watch and patch on nodes, patch on nodes/status, create
// on events in the namespace default.
package node
