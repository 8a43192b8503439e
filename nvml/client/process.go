package client

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// grace is how long a process may take to end after its input has.
const grace = time.Second

// process is a worker's process with its pipes.
type process struct {
	cmd    *exec.Cmd
	in     *os.File
	raw    syscall.RawConn // of in
	out    *os.File
	stderr lastWords
}

// launch starts a process. A program that is not there is a [missingError].
func launch(path string, args, env []string) (_ *process, err error) {
	var files []*os.File
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
			files = append(files, r, w)
		}
		return r, w
	}
	theirIn, in := pipe()
	out, theirOut := pipe()
	p := &process{in: in, out: out}
	if err == nil {
		p.raw, err = in.SyscallConn()
	}
	if err == nil {
		p.cmd = exec.Command(path, args...)
		p.cmd.Env = append(environ(), env...)
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirIn, theirOut, &p.stderr
		p.cmd.WaitDelay = grace
		// A terminal's Ctrl-C is for the daemon, which then ends its workers.
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		err = p.cmd.Start()
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close() // nil where there was no pipe any more
		}
		return nil, launchError(path, err)
	}
	_ = theirIn.Close()
	_ = theirOut.Close()
	return p, nil
}

// environ is that of this process, without what has the dynamic linker look up
// every function at once: the bindings name many that an older driver lacks, and
// the worker would end before it could say so.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "LD_BIND_NOW=") })
}

func launchError(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start worker: %w", err)
	}
	// The kernel says the same of a program whose dynamic loader is not there.
	if _, there := os.Stat(path); there == nil {
		return fmt.Errorf("start worker %s: it is there, but the dynamic loader that it asks for is not: %w", path, err)
	}
	return &missingError{path}
}

// missingError: the worker's program is not installed, so that no driver can be
// asked.
type missingError struct{ path string }

func (e *missingError) Error() string {
	return fmt.Sprintf("%s is not there: expected at %s", filepath.Base(e.path), e.path)
}

// Is has it count as [nvml.ErrNoDriver].
func (e *missingError) Is(target error) bool { return target == nvml.ErrNoDriver }

// send writes a line, or fails: it does not wait for room in the pipe. A worker
// that has answered all it was asked has read its input, so there is room.
func (p *process) send(line []byte) error {
	var n int
	var failed error
	err := p.raw.Write(func(fd uintptr) bool {
		n, failed = syscall.Write(int(fd), line)
		return true
	})
	if err = errors.Join(err, failed); err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write to worker: %w", err)
	}
	return nil
}

// lines calls take for each line of the process's output, and says whether more
// is there already. It ends with take's error, or nil when the output does.
func (p *process) lines(take func(line []byte, more bool) error) error {
	r := bufio.NewReaderSize(p.out, 16<<10)
	var long []byte // the beginning of a line that does not fit in r
	for {
		part, err := r.ReadSlice('\n')
		if len(long)+len(part) > wire.MaxLine {
			return fmt.Errorf("worker wrote a line of more than %d bytes", wire.MaxLine)
		}
		full := errors.Is(err, bufio.ErrBufferFull)
		switch ended := err != nil && !full; {
		case full:
			long = append(long, part...)
			continue
		case ended: // or the process has, and something else holds its output
			return nil
		}
		line := part
		if long != nil {
			line, long = append(long, part...), nil
		}
		if err := take(line, r.Buffered() > 0); err != nil {
			return err
		}
	}
}

// wait waits for the process, and says how it ended.
func (p *process) wait() error {
	_ = p.cmd.Wait()
	_ = p.in.Close()
	how := "worker ended: " + p.cmd.ProcessState.String()
	if said := p.stderr.String(); said != "" {
		how += ": " + said
	}
	return errors.New(how)
}
