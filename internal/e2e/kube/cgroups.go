package kube

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const groupsRoot = "/sys/fs/cgroup"

// hierarchy is a mounted cgroup hierarchy and our group in it. Every run needs
// groups of its own: a kubelet removes the groups of pods that it does not
// know, those of a run beside it too.
type hierarchy struct {
	Mount   string // such as /sys/fs/cgroup/memory
	Options string // of the mount: controllers or a name; empty in version 2
	V2      bool
	Group   string // absolute path of our group
}

// makeGroups makes a group for this run in every hierarchy, below the group of
// this process.
func makeGroups() ([]hierarchy, error) {
	found, err := hierarchies()
	if err != nil {
		return nil, err
	}
	for i, h := range found {
		sweepGroups(filepath.Dir(h.Group))
		if err := os.Mkdir(h.Group, 0o755); err != nil {
			removeGroups(found[:i])
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
		// A new group of the cpuset controller takes no process before it has these.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(h.Group), file))
			if err != nil || h.V2 {
				continue
			}
			if err := os.WriteFile(filepath.Join(h.Group, file), parent, 0o644); err != nil {
				removeGroups(found[:i+1])
				return nil, fmt.Errorf("fill cgroup: %w", err)
			}
		}
	}
	return found, nil
}

const groupPrefix = "gpuvet-e2e-"

// hierarchies reads where cgroups are mounted and which group of each is ours.
func hierarchies() ([]hierarchy, error) {
	own, err := ownGroups()
	if err != nil {
		return nil, err
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer mounts.Close()
	var found []hierarchy
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		// proc(5): ... root mount-point options [fields] - type source super-options
		before, after, _ := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 || !strings.HasPrefix(left[4], groupsRoot) {
			continue
		}
		h := hierarchy{Mount: left[4], V2: right[0] == "cgroup2"}
		if right[0] != "cgroup" && !h.V2 {
			continue
		}
		if !h.V2 {
			h.Options = controllers(right[2])
		}
		path, ok := own[h.Options]
		if !ok {
			continue
		}
		below, err := filepath.Rel(left[3], path)
		if err != nil {
			return nil, fmt.Errorf("place cgroup of %s: %w", h.Mount, err)
		}
		h.Group = filepath.Join(h.Mount, below, groupPrefix+strconv.Itoa(os.Getpid()))
		found = append(found, h)
	}
	return found, lines.Err()
}

// ownGroups maps the controllers of each hierarchy to this process's group.
func ownGroups() (map[string]string, error) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	own := map[string]string{}
	for line := range strings.Lines(string(content)) {
		// cgroups(7): id:controllers:path
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			own[fields[1]] = fields[2]
		}
	}
	return own, nil
}

// controllers keeps of a mount's options those that name its hierarchy, in the
// order of /proc/self/cgroup, which is that of the kernel in both places.
func controllers(options string) string {
	skip := []string{"rw", "ro", "xattr", "noprefix", "clone_children"}
	kept := slices.DeleteFunc(strings.Split(options, ","), func(option string) bool {
		return slices.Contains(skip, option) || strings.HasPrefix(option, "release_agent=")
	})
	return strings.Join(kept, ",")
}

// enterGroups moves this process into the groups of the run and makes them the
// roots of what it sees.
func (p plan) enterGroups() error {
	for _, h := range p.Hierarchies {
		if err := os.WriteFile(filepath.Join(h.Group, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
	}
	return unix.Unshare(unix.CLONE_NEWCGROUP)
}

// mountGroups mounts the hierarchies again, so that their roots are our groups.
func (p plan) mountGroups() error {
	if err := detachTree(groupsRoot); err != nil {
		return err
	}
	whole := len(p.Hierarchies) == 1 && p.Hierarchies[0].Mount == groupsRoot
	if !whole {
		if err := unix.Mount("cgroups", groupsRoot, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for _, h := range p.Hierarchies {
		kind, options := "cgroup", h.Options
		if h.V2 {
			kind = "cgroup2"
		}
		if strings.HasPrefix(options, "name=") {
			options = "none," + options
		}
		if err := os.MkdirAll(h.Mount, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", h.Mount, kind, 0, options); err != nil {
			return fmt.Errorf("%s: %w", h.Mount, err)
		}
	}
	if whole {
		return delegateControllers()
	}
	return nil
}

// delegateControllers hands the controllers of a version 2 root to the groups
// below it. That takes a root without processes, so ours go one level down.
func delegateControllers() error {
	inner := filepath.Join(groupsRoot, "tests")
	if err := os.Mkdir(inner, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return err
	}
	names, err := os.ReadFile(filepath.Join(groupsRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var enable []string
	for name := range strings.FieldsSeq(string(names)) {
		enable = append(enable, "+"+name)
	}
	return os.WriteFile(filepath.Join(groupsRoot, "cgroup.subtree_control"), []byte(strings.Join(enable, " ")), 0o644)
}

// detachTree unmounts everything at and below dir.
func detachTree(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			return nil // nothing is mounted there any more
		}
		if err != nil {
			return err
		}
	}
}

// removeGroups removes what makeGroups made and the cluster added below.
func removeGroups(groups []hierarchy) {
	for _, h := range groups {
		removeGroup(h.Group)
	}
}

// removeGroup removes an empty group with all below it, deepest first.
func removeGroup(group string) {
	var folders []string
	_ = filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return nil
	})
	for _, folder := range slices.Backward(folders) {
		_ = unix.Rmdir(folder)
	}
}

// sweepGroups removes the groups of runs that could not do it themselves.
func sweepGroups(parent string) {
	left, err := filepath.Glob(filepath.Join(parent, groupPrefix+"*"))
	if err != nil {
		return
	}
	for _, group := range left {
		pid := strings.TrimPrefix(filepath.Base(group), groupPrefix)
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			removeGroup(group)
		}
	}
}
