package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// abandon moves a process that the kernel does not let go into the control
// groups of the machine's first process. In ours it would keep our pod: the
// kubelet removes none while there is a process in its groups. The first process
// is seen, with its mounts, by a pod with hostPID that is privileged; everywhere
// else it is our own, and nothing changes.
func abandon(pid int) error {
	groups, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		return fmt.Errorf("leave process %d behind: %w", pid, err)
	}
	mounts, err := os.ReadFile("/proc/1/mountinfo")
	if err != nil {
		return fmt.Errorf("leave process %d behind: %w", pid, err)
	}
	var errs []error
	for line := range strings.Lines(string(groups)) {
		// cgroups(7): id:controllers:path, without controllers in version 2
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if mount := hierarchy(string(mounts), fields[1]); mount != "" {
			list := filepath.Join("/proc/1/root", mount, fields[2], "cgroup.procs")
			errs = append(errs, os.WriteFile(list, []byte(strconv.Itoa(pid)), 0))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave process %d behind: %w", pid, err)
	}
	return nil
}

// hierarchy is where the controllers' cgroups are mounted, empty if nowhere.
func hierarchy(mounts, controllers string) string {
	first, _, _ := strings.Cut(controllers, ",")
	for line := range strings.Lines(mounts) {
		// proc_pid_mountinfo(5): ... root mount-point options [fields] - type source super-options
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || left[3] != "/" {
			continue
		}
		v2 := right[0] == "cgroup2" && controllers == ""
		v1 := right[0] == "cgroup" && controllers != "" && slices.Contains(strings.Split(right[2], ","), first)
		if v1 || v2 {
			return left[4]
		}
	}
	return ""
}
