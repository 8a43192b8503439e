package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// Version is the version of the state file that this program writes, and the
// highest that it reads.
const Version = 1

// ErrNewer says that a newer gpuvet wrote the state. Such a file is neither
// read nor replaced.
var ErrNewer = errors.New("state was written by a newer gpuvet")

const magic = "gpuvet-state"

// header is the first line of a file with this payload, newline included.
func header(payload []byte) []byte {
	return fmt.Appendf(nil, "%s %d %d %x\n", magic, Version, len(payload), sha256.Sum256(payload))
}

// unframe gives the payload of a file's content, ErrNewer, or an error that
// says how the content is damaged.
func unframe(content []byte) ([]byte, error) {
	if len(content) == 0 {
		return nil, errors.New("file is empty")
	}
	line, payload, whole := bytes.Cut(content, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 2 || string(fields[0]) != magic {
		return nil, errors.New("file has no state header")
	}
	version, err := strconv.Atoi(string(fields[1]))
	if err != nil || version < 1 {
		return nil, fmt.Errorf("header has version %q", fields[1])
	}
	// The version comes before everything else: a newer header may have
	// another shape, and that must not be taken for damage.
	if version > Version {
		return nil, fmt.Errorf("%w: it has version %d and this gpuvet reads up to %d; run the newer gpuvet again, or move the file away to start afresh", ErrNewer, version, Version)
	}
	if !whole || len(fields) != 4 {
		return nil, errors.New("header is torn")
	}
	length, err := strconv.Atoi(string(fields[2]))
	if err != nil {
		return nil, fmt.Errorf("header has length %q", fields[2])
	}
	if len(payload) != length {
		return nil, fmt.Errorf("payload has %d bytes, header says %d", len(payload), length)
	}
	sum := sha256.Sum256(payload)
	if hex.EncodeToString(sum[:]) != string(fields[3]) {
		return nil, errors.New("payload does not match its checksum")
	}
	return payload, nil
}
