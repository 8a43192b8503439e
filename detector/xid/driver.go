package xid

import "bytes"

// reports are what the driver says from one of its functions, without an Xid:
// the beginning of the text behind "<function>: ". Taken from the format
// strings of open-gpu-kernel-modules 595.45.04; the file is named beside.
var reports = [...]struct {
	kind  Kind
	start string
}{
	{Init, "Cannot initialize GSP firmware RM"},                                          // osinit.c
	{Hang, "GSP RM heartbeat timed out"},                                                 // kernel_gsp.c
	{Hang, "LibOS heartbeat timed out"},                                                  // kernel_gsp.c
	{Link, "Failed to recover from uncontained NVLINK error"},                            // kernel_nvlink.c
	{Recovery, "nvidia-fabricmanager daemon shutdown detected, robust channel recovery"}, // fm_session_api.c
	{Recovery, "nvidia-fabricmanager daemon has invoked robust channel recovery"},        // fm_session_api.c
	{Recovery, "Abrupt nvidia-imex daemon shutdown detected, robust channel recovery"},   // imex_session_api.c
	{Recovery, "nvidia-imex daemon has invoked robust channel recovery"},                 // imex_session_api.c
	{Recovery, "uvm encountered global fatal error"},                                     // nv_gpu_ops.c
	{Recovery, "Gpu marked for reset. Triggering TDR"},                                   // kernel_rc_callback.c
}

const (
	lostHead  = "The NVIDIA GPU "
	lostIDs   = "(PCI ID: "
	lostTail  = "fallen off the bus and is not responding to commands"
	lostShort = "GPU has fallen off the bus"
	initText  = "RmInitAdapter failed!"
)

// parseDriver reads what follows "NVRM: " in lines that are not Xids.
func parseDriver(message []byte) (Line, bool) {
	if rest, ok := cut(message, "GPU "); ok {
		return parseGPU(rest)
	}
	if rest, ok := cut(message, lostHead); ok {
		return parseLost(message, rest)
	}
	if rest, ok := cut(message, "The NVIDIA probe routine failed for "); ok {
		_, _, ok = cutDecimal(rest, 5)
		return told(Init, message, ok)
	}
	if rest, ok := cut(message, "Rate limiting GSP RPC error prints for GPU at PCI:"); ok {
		addr, _, ok := cutAddress(rest)
		line, ok := told(Hang, message, ok)
		if ok {
			line.PCI = addr.String()
		}
		return line, ok
	}
	// Newer drivers name the GPU by a number of their own: no address, so no use.
	rest := message
	if tail, ok := cut(rest, "GPU"); ok {
		_, tail, _ = cutDecimal(tail, 3)
		rest = cutBlanks(tail)
	}
	if _, ok := cut(rest, initText); ok {
		return told(Init, message, true)
	}
	return parseReport(message, rest)
}

// parseGPU reads what follows "NVRM: GPU ": "<address>: <message>", and the
// "at <address> has fallen off the bus" of drivers before 400.
func parseGPU(rest []byte) (Line, bool) {
	old, at := cut(rest, "at ")
	addr, tail, ok := cutAddress(old)
	if !ok {
		return Line{}, false
	}
	kind := None
	if at {
		if _, ok := cut(tail, " has fallen off the bus"); ok {
			kind = Lost
		}
	} else if tail, ok = cut(tail, ": "); ok {
		if _, ok := cut(tail, lostShort); ok {
			kind = Lost
		} else if _, ok := cut(tail, initText); ok {
			kind = Init
		}
	}
	line, ok := told(kind, bytes.TrimPrefix(tail, []byte(" ")), kind != None)
	if ok {
		line.PCI = addr.String()
	}
	return line, ok
}

// parseLost reads the long form that rm_is_supported_device prints in one go
// (osapi.c): three lines, each with NVRM before it.
func parseLost(message, rest []byte) (Line, bool) {
	addr, rest, ok := cutAddress(rest)
	if !ok {
		return Line{}, false
	}
	i := bytes.Index(rest, []byte(lostIDs))
	if i < 0 || !bytes.Contains(rest[i:], []byte(lostTail)) {
		return Line{}, false
	}
	line, _ := told(Lost, bytes.ReplaceAll(message, []byte("\nNVRM: "), []byte(" ")), true)
	line.PCI = addr.String()
	return line, true
}

// parseReport reads "<function>: <text>".
func parseReport(message, rest []byte) (Line, bool) {
	i := bytes.IndexByte(rest, ':')
	if i <= 0 || i+1 == len(rest) || rest[i+1] != ' ' {
		return Line{}, false
	}
	function, text := rest[:i], rest[i+2:]
	for _, report := range reports {
		if _, ok := cut(text, report.start); ok {
			return told(report.kind, message, isUnit(function))
		}
	}
	if _, ok := cut(function, "knvlinkDiscoverPostRxDet"); ok {
		return told(Link, message, isUnit(function) && isUndetected(text))
	}
	if tail, ok := cut(text, "GPU"); ok {
		_, tail, _ = cutDecimal(tail, 3)
		if _, ok := cut(tail, " sanity check failed 0x"); ok { // kernel_gsp.c: an answer of the GSP that makes no sense
			return told(Hang, message, isUnit(function))
		}
	}
	return Line{}, false
}

// isUndetected reads "Getting peer<n>['s] postRxDetLinkMask failed!".
func isUndetected(text []byte) bool {
	rest, ok := cut(text, "Getting peer")
	if !ok {
		return false
	}
	_, rest, ok = cutDecimal(rest, 3)
	if !ok {
		return false
	}
	rest, _ = cut(rest, "'s")
	_, ok = cut(rest, " postRxDetLinkMask failed!")
	return ok
}

// told is an event of which the driver's words are all that there is.
func told(kind Kind, message []byte, ok bool) (Line, bool) {
	if !ok {
		return Line{}, false
	}
	return Line{Kind: kind, Text: printable(message)}, true
}
