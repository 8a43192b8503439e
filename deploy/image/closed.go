package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// binary is a program or shared library among the files.
type binary struct {
	*elf.File
	path     string
	versions []string // of the symbols that it has for others: GLIBC_2.34
}

// closed checks that every program finds in the image what it is linked against:
// its interpreter and its libraries, with the versions of symbols that it needs.
// A glibc older than the one that was built with shows here, and not in a
// cluster.
func closed(files []file, arch string) error {
	binaries, err := binariesOf(files, arch)
	if err != nil {
		return err
	}
	var faults []error
	for _, b := range binaries {
		if err := b.finds(files, binaries); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", b.path, err))
		}
	}
	return errors.Join(faults...)
}

func binariesOf(files []file, arch string) ([]binary, error) {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	var binaries []binary
	for _, f := range files {
		if !bytes.HasPrefix(f.content, []byte(elf.ELFMAG)) {
			continue
		}
		parsed, err := elf.NewFile(bytes.NewReader(f.content))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		if parsed.Machine != machine {
			return nil, fmt.Errorf("%s: is for %s, want %s", f.path, parsed.Machine, arch)
		}
		b := binary{File: parsed, path: f.path}
		if parsed.SectionByType(elf.SHT_GNU_VERDEF) != nil {
			defined, err := parsed.DynamicVersions()
			if err != nil {
				return nil, fmt.Errorf("read versions of %s: %w", f.path, err)
			}
			for _, v := range defined {
				b.versions = append(b.versions, v.Name)
			}
		}
		binaries = append(binaries, b)
	}
	return binaries, nil
}

// finds checks what one of them needs.
func (b binary) finds(files []file, binaries []binary) error {
	interpreter, err := b.interpreter()
	if err != nil {
		return err
	}
	if interpreter != "" && !slices.ContainsFunc(files, func(f file) bool { return f.path == interpreter }) {
		return fmt.Errorf("its interpreter %s is not in the image", interpreter)
	}
	if b.SectionByType(elf.SHT_DYNAMIC) == nil {
		return nil // static
	}
	libraries, err := b.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read libraries: %w", err)
	}
	for _, name := range libraries {
		if !slices.ContainsFunc(binaries, func(l binary) bool { return path.Base(l.path) == name }) {
			return fmt.Errorf("its library %s is not in the image", name)
		}
	}
	if b.SectionByType(elf.SHT_GNU_VERNEED) == nil {
		return nil
	}
	needs, err := b.DynamicVersionNeeds()
	if err != nil {
		return fmt.Errorf("read needed versions: %w", err)
	}
	for _, need := range needs {
		i := slices.IndexFunc(binaries, func(l binary) bool { return path.Base(l.path) == need.Name })
		for _, version := range need.Needs {
			if i < 0 || !slices.Contains(binaries[i].versions, version.Dep) {
				return fmt.Errorf("it needs %s of %s, which the image's does not have", version.Dep, need.Name)
			}
		}
	}
	return nil
}

// interpreter is the dynamic loader that a program asks for; empty for others.
func (b binary) interpreter() (string, error) {
	for _, p := range b.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return "", fmt.Errorf("read interpreter: %w", err)
		}
		return strings.TrimRight(string(name), "\x00"), nil
	}
	return "", nil
}
