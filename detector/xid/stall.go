package xid

import "bytes"

// stall is a task or a processor that the kernel's watchdogs call stuck. It is
// an event when the trace behind it shows that it hangs in the driver: a name
// of a task proves nothing, anybody can call his process nv_queue.
type stall struct {
	held  []byte // the watchdog's line; empty: none
	first uint64 // its record
}

// maxHead bounds what is held: a watchdog's line is about 100 bytes long.
const maxHead = 256

// opens takes text if it may be a watchdog's line.
func (s *stall) opens(text []byte, n uint64) {
	for _, start := range []string{"INFO: task ", "INFO: rcu_", "rcu: INFO: rcu_", "watchdog: ", "NMI watchdog: ", "BUG: soft lockup - CPU#"} {
		if _, ok := cut(text, start); ok {
			s.held, s.first = append(s.held[:0], text[:min(len(text), maxHead)]...), n
			return
		}
	}
}

// stallHead reads the watchdogs' lines (kernel/hung_task.c, kernel/watchdog.c,
// kernel/rcu/tree_stall.h):
//
//	INFO: task <comm>:<pid> blocked for more than 120 seconds.
//	watchdog: BUG: soft lockup - CPU#7 stuck for 23s! [<comm>:<pid>]
//	watchdog: Watchdog detected hard LOCKUP on cpu 7
//	rcu: INFO: rcu_sched self-detected stall on CPU
//
// Text has no byte of the name.
func stallHead(text []byte) (Line, bool) {
	if rest, ok := cut(text, "INFO: task "); ok {
		return hungTask(rest)
	}
	text, _ = cut(text, "NMI ")
	text, _ = cut(text, "watchdog: ")
	text, _ = cut(text, "rcu: ")
	if _, ok := cut(text, "BUG: soft lockup - CPU#"); ok {
		return softLockup(text)
	}
	if _, ok := cut(text, "Watchdog detected hard LOCKUP on cpu "); ok {
		return told(Hang, text, true)
	}
	if _, ok := cut(text, "INFO: rcu_"); ok {
		return told(Hang, text, bytes.Contains(text, []byte("detected stall")))
	}
	return Line{}, false
}

func hungTask(rest []byte) (Line, bool) {
	for i := 0; i <= maxComm && i < len(rest); i++ {
		if rest[i] != ':' {
			continue
		}
		if pid, tail, ok := cutDecimal(rest[i+1:], 10); ok && bytes.HasPrefix(tail, []byte(" blocked for more than ")) {
			return Line{Kind: Hang, Process: printable(rest[:i]), PID: &pid, Text: printable(bytes.TrimRight(tail, ". "))}, true
		}
	}
	return Line{}, false
}

func softLockup(text []byte) (Line, bool) {
	what, task, ok := bytes.Cut(text, []byte("s! ["))
	i := bytes.LastIndexByte(task, ':')
	if !ok || i < 0 {
		return Line{}, false
	}
	line := Line{Kind: Hang, Process: printable(task[:i]), Text: printable(what) + "s!"}
	if pid, _, ok := cutDecimal(task[i+1:], 10); ok {
		line.PID = &pid
	}
	return line, true
}

// next gives the event if text is the trace's first frame in the driver. The
// trace ends where the kernel says so, or after JoinDepth records.
func (s *stall) next(text []byte, n uint64) (line Line, back int, ok bool) {
	back = int(n - s.first)
	if back >= JoinDepth || string(bytes.TrimSpace(text)) == "</TASK>" {
		s.held = s.held[:0]
		return Line{}, 0, false
	}
	frame, ok := driverFrame(text)
	if !ok {
		return Line{}, 0, false
	}
	line, ok = stallHead(s.held)
	line.Text = printable([]byte(line.Text + " in " + string(frame)))
	s.held = s.held[:0]
	if !ok {
		return Line{}, 0, false
	}
	return line, back, true
}

// driverFrame reads one entry of a call trace, or the RIP line above it, and
// gives it if it is in one of the driver's modules:
//
//	[<TASK>] [[<address>] ]<symbol>+0x<offset>/0x<size> [nvidia[_uvm|…][ <build id>]]
//
// An entry with a question mark is what an earlier call left on the stack: it
// says nothing about where the task is.
func driverFrame(text []byte) ([]byte, bool) {
	frame := bytes.TrimSpace(text)
	if rest, ok := cut(frame, "RIP: "); ok {
		if _, tail, ok := bytes.Cut(rest, []byte(":")); ok {
			frame = tail
		}
	}
	if rest, ok := cut(frame, "[<"); ok {
		if _, tail, ok := bytes.Cut(rest, []byte(">] ")); ok {
			frame = tail
		}
	}
	i := bytes.IndexByte(frame, '+')
	if i <= 0 || bytes.IndexByte(frame[:i], ' ') >= 0 {
		return nil, false
	}
	rest, ok := cut(frame[i+1:], "0x")
	if !ok {
		return nil, false
	}
	if _, rest, ok = cutHex(rest, 1, 8); !ok {
		return nil, false
	}
	if rest, ok = cut(rest, "/0x"); !ok {
		return nil, false
	}
	if _, rest, ok = cutHex(rest, 1, 8); !ok {
		return nil, false
	}
	module, ok := cut(rest, " [nvidia")
	return frame, ok && len(module) > 0 && module[len(module)-1] == ']' && (module[0] == ']' || module[0] == '_' || module[0] == ' ')
}
