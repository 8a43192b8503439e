package xid

import "bytes"

// parseNVLink reads the message of Xid 144 to 150, whole or not at all:
//
//	<unit> <Fatal|Nonfatal> XC<0|1> i<0|1> Link <n> (<intrInfo> <errorStatus> [<debug> …])
//
// Blanks vary. One unit ("MSE Degraded") has a blank in its name.
func parseNVLink(message []byte) *NVLink {
	var n NVLink
	rest := message
	for fields := 0; ; fields++ {
		word, tail := cutWord(rest)
		if len(word) == 0 {
			return nil
		}
		if string(word) == "Fatal" || string(word) == "Nonfatal" {
			if fields == 0 {
				return nil
			}
			n.Unit = string(bytes.Join(bytes.Fields(message[:len(message)-len(rest)]), []byte(" ")))
			n.Fatal = string(word) == "Fatal"
			rest = tail
			break
		}
		if fields == 2 || !isUnit(word) {
			return nil
		}
		rest = tail
	}
	var ok bool
	if n.CrossContain, rest, ok = cutFlag(rest, "XC"); !ok {
		return nil
	}
	if n.Injected, rest, ok = cutFlag(rest, "i"); !ok {
		return nil
	}
	if rest, ok = cut(cutBlanks(rest), "Link "); !ok {
		return nil
	}
	rest, unspecific := cut(cutBlanks(rest), "-")
	if n.Link, rest, ok = cutDecimal(rest, 3); !ok {
		return nil
	}
	if unspecific {
		n.Link = -n.Link
	}
	words, ok := registers(rest)
	if !ok {
		return nil
	}
	n.InterruptInfo, n.ErrorStatus = words[0], words[1]
	if len(words) > 2 {
		n.Debug = words[2:]
	}
	return &n
}

// severity is the line's own word, in our spelling.
func (n *NVLink) severity() string {
	if n.Fatal {
		return "Fatal"
	}
	return "Non-fatal"
}

// registers reads "(0x… 0x… …)" to the end of the record: two to seven words.
func registers(b []byte) ([]uint32, bool) {
	rest, ok := cut(cutBlanks(b), "(")
	if !ok {
		return nil, false
	}
	words := make([]uint32, 0, 7)
	for {
		rest = cutBlanks(rest)
		if tail, ok := cut(rest, ")"); ok {
			return words, len(words) >= 2 && len(bytes.TrimSpace(tail)) == 0
		}
		if rest, ok = cut(rest, "0x"); !ok || len(words) == cap(words) {
			return nil, false
		}
		var word uint32
		if word, rest, ok = cutHex(rest, 1, 8); !ok {
			return nil, false
		}
		words = append(words, word)
	}
}

// cutFlag takes a label and the 0 or 1 behind it.
func cutFlag(b []byte, label string) (set bool, rest []byte, ok bool) {
	digit, rest := cutWord(b)
	if digit, ok = cut(digit, label); !ok || len(digit) != 1 || digit[0] != '0' && digit[0] != '1' {
		return false, b, false
	}
	return digit[0] == '1', rest, true
}

// cutWord takes the next word of b, up to a blank.
func cutWord(b []byte) (word, rest []byte) {
	b = cutBlanks(b)
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		return b[:i], b[i:]
	}
	return b, nil
}

func isUnit(word []byte) bool {
	for _, c := range word {
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '/':
		default:
			return false
		}
	}
	return true
}
