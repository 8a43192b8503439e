package fakelib

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// file is the page as other processes see it: the mapped file. It is written a
// word at a time, each at once.
type file struct {
	mapped []byte
	page   *page // the same memory
}

func createFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := int(unsafe.Sizeof(page{}))
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &file{mapped: mapped, page: (*page)(unsafe.Pointer(&mapped[0]))}, nil
}

func (f *file) close() error {
	if f.mapped == nil {
		return nil
	}
	mapped := f.mapped
	f.mapped, f.page = nil, nil
	return unix.Munmap(mapped)
}

// words are the memory of a value, whose size is a multiple of eight bytes.
func words[T any](v *T) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(v)), unsafe.Sizeof(*v)/8)
}

// differ gives the range of words in which two values differ; it is empty if
// they do not.
func differ[T any](a, b *T) (from, to int) {
	x, y := words(a), words(b)
	for to = len(x); to > 0 && x[to-1] == y[to-1]; to-- {
	}
	for from = 0; from < to && x[from] == y[from]; from++ {
	}
	return from, to
}

// update makes a shared value the same as another. Only one goroutine writes,
// so that what it reads of the shared one needs no care.
func update[T any](shared, want *T) (changed bool) {
	from, to := differ(shared, want)
	into, of := words(shared), words(want)
	for i := from; i < to; i++ {
		if into[i] != of[i] {
			atomic.StoreUint64(&into[i], of[i])
		}
	}
	return from < to
}

// updateGPU is update with the sequence of a GPU odd meanwhile.
func updateGPU(shared, want *gpu) {
	want.Sequence = shared.Sequence
	if from, to := differ(shared, want); from == to {
		return
	}
	atomic.StoreUint64(&shared.Sequence, want.Sequence+1)
	want.Sequence++
	update(shared, want)
	atomic.StoreUint64(&shared.Sequence, want.Sequence+1)
}

// wake wakes everybody who waits for events.
func (f *file) wake() {
	const futexWake = 1
	_, _, _ = unix.Syscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&f.page.Head)), futexWake, uintptr(1<<31-1))
}
