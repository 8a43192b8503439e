package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// NodeName is the node that has a kubelet.
const NodeName = "node-1"

// The folders of the node in which drivers, the kubelet and the container runtime
// meet, as everywhere.
const (
	KubeletDir = "/var/lib/kubelet"
	CDIDir     = "/var/run/cdi"
)

const (
	// nodeAddress is one of those reserved for documentation. The kubelet refuses a
	// loopback address.
	nodeAddress = "192.0.2.10"
	// serviceAddress is that of the service kubernetes, which every pod is told. The
	// API server listens there itself: there is no kube-proxy.
	serviceAddress = "10.96.0.1"
)

// command is this very binary for the next stage.
func (p plan) command(ctx context.Context) (*exec.Cmd, error) {
	handed, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	command := exec.CommandContext(ctx, "/proc/self/exe", testArguments()...)
	command.Args[0] = os.Args[0]
	command.Env = append(os.Environ(), planVariable+"="+string(handed))
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command, nil
}

// probeNamespace says whether this process may make namespaces: root in a
// container often may not.
func probeNamespace() error {
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	return nil
}

// furnish makes a machine of fresh namespaces: its own /proc, /run, /var/lib,
// /etc/cdi, cgroups, name and network.
func (p plan) furnish() error {
	for _, item := range []struct {
		what string
		do   func() error
	}{
		{"cut off mounts", cutOffMounts},
		{"enter cgroups", p.enterGroups},
		{"mount cgroups", p.mountGroups},
		{"mount /proc, /run, /var/lib and /etc/cdi", p.mountFolders},
		{"set host name", func() error { return unix.Sethostname([]byte(NodeName)) }},
		{"set up network", setUpNetwork},
	} {
		if err := item.do(); err != nil {
			return fmt.Errorf("%s: %w", item.what, err)
		}
	}
	return nil
}

// cutOffMounts keeps our mounts from the machine, then shares them among
// ourselves: the kubelet expects a shared tree.
func cutOffMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

func (p plan) mountFolders() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	// Sockets and locks live in /run under fixed names.
	if err := unix.Mount("run", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	// What a node keeps is kept under fixed names too, and must not meet the
	// machine's own.
	kept := filepath.Join(p.State, "var-lib")
	for _, folder := range []string{"/run/cdi", "/run/lock", kept} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(kept, "/var/lib", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// The machine's own devices, if it has a folder for them, are none of this node's.
	err := unix.Mount("cdi", "/etc/cdi", "tmpfs", 0, "mode=755")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// setUpNetwork gives the node its address. It sits on one end of a veth pair,
// because not every kernel has dummy devices.
func setUpNetwork() error {
	for _, line := range []string{
		"link set lo up",
		"link add node0 type veth peer name node1",
		"link set node1 up",
		"address add " + nodeAddress + "/24 dev node0",
		"address add " + serviceAddress + "/32 dev node0",
		"link set node0 up",
		"route add default via 192.0.2.1 dev node0",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w\n%s", line, err, out)
		}
	}
	return nil
}
