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
	{Init, "unexpected WPR2 already up, cannot proceed with booting GSP"},                // kernel_gsp.c
	{Init, "unexpected WPR2 already up, cannot proceed with booting gsp"},                // the same, before 570
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
	lostDebug = "GPU is lost, skipping "
	initText  = "RmInitAdapter failed!"
)

// troubles are what the driver says of one GPU, behind "GPU <address>: ".
var troubles = [...]struct {
	kind  Kind
	start string
}{
	{Lost, lostShort}, // osinit.c
	{Lost, lostDebug}, // nv.c, nv-pci.c, nv-mmap.c; at the level of debugging
	{Init, initText},  // osinit.c
	{Init, minorText}, // nv.c, behind the one above
	{Init, "No interrupts of any type are available. Cannot use this GPU."}, // nv.c
	{Init, "request_irq() failed ("},                                        // nv.c
}

// minorText begins the line that names a GPU by its device minor number. That
// of drivers before 400 has no address.
const (
	minorText    = "rm_init_adapter failed, device minor number "
	minorTextOld = "rm_init_adapter failed for device bearing minor number "
)

// parseDriver reads what follows "NVRM: " in lines that are not Xids.
func parseDriver(message []byte) (Line, bool) {
	if rest, ok := cut(message, "GPU "); ok {
		if _, ok := cut(message, lostDebug); ok { // names no GPU
			return told(Lost, message, true)
		}
		return parseGPU(rest)
	}
	if rest, ok := cut(message, lostHead); ok {
		return parseLost(message, rest)
	}
	if rest, ok := cut(message, "The NVIDIA probe routine failed for "); ok { // nv.c
		_, _, ok = cutDecimal(rest, 5)
		return told(Init, message, ok)
	}
	if _, ok := cut(message, "None of the NVIDIA devices were initialized."); ok { // nv.c
		return told(Init, message, true)
	}
	if _, ok := cut(message, minorTextOld); ok {
		return initFailure(message)
	}
	if rest, ok := cut(message, "API mismatch: the client "); ok {
		return parseMismatch(message, rest)
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
	for _, start := range []string{initText, minorText} {
		if _, ok := cut(rest, start); ok {
			line, ok := initFailure(rest)
			line.Text = printable(message)
			return line, ok
		}
	}
	return parseReport(message, rest)
}

// parseGPU reads what follows "NVRM: GPU ": "<address>: <message>", and the
// "at [PCI:]<address> has fallen off the bus" of drivers before 400.
func parseGPU(rest []byte) (Line, bool) {
	rest, at := cut(rest, "at ")
	if at {
		rest, _ = cut(rest, "PCI:")
	}
	addr, tail, ok := cutAddress(rest)
	if !ok {
		return Line{}, false
	}
	var line Line
	if at {
		if tail, ok = cut(tail, " "); ok {
			_, ok = cut(tail, "has fallen off the bus")
		}
		line, ok = told(Lost, tail, ok)
	} else if tail, ok = cut(tail, ": "); ok {
		line, ok = parseTrouble(tail)
	}
	if ok {
		line.PCI = addr.String()
	}
	return line, ok
}

func parseTrouble(message []byte) (Line, bool) {
	for _, trouble := range troubles {
		if _, ok := cut(message, trouble.start); ok {
			if trouble.kind == Init {
				return initFailure(message)
			}
			return told(trouble.kind, message, true)
		}
	}
	return Line{}, false
}

// initFailure is a failed initialisation, with the minor number if it has one.
func initFailure(message []byte) (Line, bool) {
	line, _ := told(Init, message, true)
	for _, text := range []string{minorText, minorTextOld} {
		if tail, ok := cut(message, text); ok {
			if n, _, ok := cutDecimal(tail, 5); ok {
				line.Minor = &n
			}
		}
	}
	return line, true
}

// parseMismatch reads the complaint about a client of another version, which
// rm_perform_version_check prints in one go (osapi.c). Any process can bring a
// library of another version.
//
//	API mismatch: the client '<comm>' (pid <n>)\nNVRM: has the version …
//	API mismatch: the client has the version …                              (before 560)
func parseMismatch(message, rest []byte) (Line, bool) {
	line, _ := told(Software, nil, true)
	said := message
	if tail, ok := cut(rest, "'"); ok {
		border := -1
		for i := 0; i <= maxComm && i < len(tail); i++ {
			if _, ok := cut(tail[i:], "' (pid "); ok {
				border = i
			}
		}
		if border < 0 {
			return Line{}, false
		}
		pid, behind, ok := cutDecimal(tail[border+len("' (pid "):], 10)
		if ok {
			behind, ok = cut(behind, ")")
		}
		if !ok {
			return Line{}, false
		}
		line.Process, line.PID = printable(tail[:border]), &pid
		said = append([]byte("API mismatch: the client"), behind...)
	}
	line.Text = printable(bytes.ReplaceAll(said, []byte("\nNVRM: "), []byte(" ")))
	return line, true
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
