package xid

import "fmt"

// address is a PCI address. Drivers print the domain with four digits or
// more, and some leave the function out: then it is 0.
type address struct {
	domain                uint32
	bus, device, function uint8
}

// String is the one form that the project uses: 0000:3b:00.0, lower case.
func (a address) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", a.domain, a.bus, a.device, a.function)
}

// cutAddress takes domain:bus:device[.function] off b.
func cutAddress(b []byte) (address, []byte, bool) {
	domain, rest, ok := cutHex(b, 4, 8)
	if !ok {
		return address{}, b, false
	}
	if rest, ok = cut(rest, ":"); !ok {
		return address{}, b, false
	}
	bus, rest, ok := cutHex(rest, 2, 2)
	if !ok {
		return address{}, b, false
	}
	if rest, ok = cut(rest, ":"); !ok {
		return address{}, b, false
	}
	device, rest, ok := cutHex(rest, 2, 2)
	if !ok || device > 0x1f {
		return address{}, b, false
	}
	a := address{domain: domain, bus: uint8(bus), device: uint8(device)}
	if tail, ok := cut(rest, "."); ok {
		function, tail, ok := cutHex(tail, 1, 1)
		if !ok || function > 7 {
			return address{}, b, false
		}
		a.function, rest = uint8(function), tail
	}
	return a, rest, true
}

// requester is the device of a 16-bit requester ID in the given domain.
func requester(domain, id uint32) address {
	return address{domain: domain, bus: uint8(id >> 8), device: uint8(id >> 3 & 0x1f), function: uint8(id & 7)}
}

// cut is bytes.CutPrefix for a constant.
func cut(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return b, false
	}
	return b[len(prefix):], true
}

// cutDecimal takes a number of at most digits decimal digits off b.
func cutDecimal(b []byte, digits int) (int, []byte, bool) {
	n, i := 0, 0
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		if i == digits {
			return 0, b, false
		}
		n = n*10 + int(b[i]-'0')
	}
	return n, b[i:], i > 0
}

// cutHex takes a number of least to most hex digits, without 0x, off b.
func cutHex(b []byte, least, most int) (uint32, []byte, bool) {
	var n uint32
	i := 0
	for ; i < len(b); i++ {
		digit, ok := hexDigit(b[i])
		if !ok {
			break
		}
		if i == most {
			return 0, b, false
		}
		n = n<<4 | digit
	}
	return n, b[i:], i >= least
}

func hexDigit(c byte) (uint32, bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint32(c - '0'), true
	case 'a' <= c && c <= 'f':
		return uint32(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return uint32(c-'A') + 10, true
	}
	return 0, false
}

// cutBlanks takes the blanks at the head of b.
func cutBlanks(b []byte) []byte {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	return b
}
