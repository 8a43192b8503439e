// Package kube runs a real Kubernetes for tests: etcd, the control plane,
// containerd and one kubelet, in mount, network, PID, cgroup and UTS namespaces
// of their own. Ports never clash with another run, and everything that was
// started ends with the test process, however that ends.
//
// [Main] is called by TestMain and passes through three processes, each the
// same test binary: the one that go test started prepares what must outlive the
// namespaces, the first process inside them mounts and reaps, and its child
// starts the cluster and runs the tests.
//
// The kernel log is not part of this: /dev/kmsg is one for the whole machine,
// and what other runs wrote to it is still there.
package kube
