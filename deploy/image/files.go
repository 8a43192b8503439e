package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// file is one file of the image.
type file struct {
	path    string // absolute, in the image
	mode    int64  // permissions
	content []byte
}

// platforms are the architectures, with the names that Debian gives to their
// libraries.
var platforms = map[string]struct{ triplet, loader string }{
	"amd64": {"x86_64-linux-gnu", "/lib64/ld-linux-x86-64.so.2"},
	"arm64": {"aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1"},
}

// read reads the files of the list and of the arguments, in the order of their
// paths.
func (o options) read(args []string) ([]file, error) {
	var files []file
	if o.list != "" {
		list, err := os.Open(o.list)
		if err != nil {
			return nil, fmt.Errorf("read list: %w", err)
		}
		defer list.Close()
		if files, err = readList(list, o.arch); err != nil {
			return nil, fmt.Errorf("read list %s: %w", o.list, err)
		}
	}
	for _, arg := range args {
		target, source, _ := strings.Cut(arg, "=")
		f, err := readFile(target, "0755", source)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", arg, err)
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, errors.New("no files: expected -files, or PATH=SOURCE")
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	for i := range files[1:] {
		if files[i].path == files[i+1].path {
			return nil, fmt.Errorf("%s: there twice", files[i].path)
		}
	}
	return files, nil
}

// readList reads the files of a list: a path, a mode and a source in each line,
// then behind a # why the file is there. A line of its own may be a comment.
func readList(list io.Reader, arch string) ([]file, error) {
	p := platforms[arch]
	names := strings.NewReplacer("$TRIPLET", p.triplet, "$LOADER", p.loader)
	var files []file
	lines := bufio.NewScanner(list)
	for number := 1; lines.Scan(); number++ {
		entry, why, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(names.Replace(entry))
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 || strings.TrimSpace(why) == "" {
			return nil, fmt.Errorf("line %d: expected PATH MODE SOURCE # WHY", number)
		}
		f, err := readFile(words[0], words[1], words[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		files = append(files, f)
	}
	return files, lines.Err()
}

func readFile(target, mode, source string) (file, error) {
	if target != path.Clean(target) || !path.IsAbs(target) || target == "/" {
		return file{}, fmt.Errorf("path %q: expected an absolute one, such as /usr/bin/app", target)
	}
	bits, err := strconv.ParseInt(mode, 8, 64)
	if err != nil || bits&^0o777 != 0 {
		return file{}, fmt.Errorf("mode %q: expected permissions, such as 0755", mode)
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return file{}, fmt.Errorf("read source: %w", err)
	}
	return file{target, bits, content}, nil
}
