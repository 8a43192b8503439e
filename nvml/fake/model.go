package fake

// Model is what all GPUs of one kind have in common, beyond their identity.
type Model struct {
	Clocks
	PCIDevice, PCISubsystem uint32 // as NVML has them: device before vendor
	PartNumber              string
	Capability              [2]int // CUDA compute capability
	Cores, BusWidth         int
	BAR1                    uint64 // bytes
	Power                   PowerLimits
	Temperatures            TemperatureLimits
	PCIe                    PCIe // the most
	NVLink                  NVLinks
	RowBanks                int  // banks of the row remapper
	GPM                     bool // profiling metrics without a profiler: Hopper and later
	Fabric                  bool // registers with a fabric manager
	MIG                     []MIGProfile
}

// Clocks are the highest clocks of a GPU, in Hz.
type Clocks struct{ SM, Memory, Video float64 }

// PowerLimits are the limits between which a limit can be set, and the one that
// is set first; W.
type PowerLimits struct{ Min, Max, Default float64 }

// TemperatureLimits are in °C. 0: there is none.
type TemperatureLimits struct{ Max, Slowdown, Shutdown, Memory float64 }

// PCIe is a PCIe link.
type PCIe struct{ Generation, Width int }

// NVLinks are the NVLinks of a GPU.
type NVLinks struct {
	Count   int
	Version int // NVML_NVLINK_VERSION_*
	Speed   int // MB/s of one link, one way
}

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
)

// The numbers are those that nvidia-smi -q and nvidia-smi mig -lgip print, as
// far as listings of them are public. Not found, and so assumed, are the power
// and temperature limits of the L40S and B200, and the row banks of the B200.
func models() map[string]Model {
	return map[string]Model{
		"a100": {
			Clocks:    Clocks{SM: 1410e6, Memory: 1593e6, Video: 1290e6},
			PCIDevice: 0x20b210de, PCISubsystem: 0x147f10de, PartNumber: "692-2G506-0212-002",
			Capability: [2]int{8, 0}, Cores: 6912, BusWidth: 5120, BAR1: 128 * gibibyte,
			Power:        PowerLimits{Min: 100, Max: 400, Default: 400},
			Temperatures: TemperatureLimits{Max: 85, Slowdown: 89, Shutdown: 92, Memory: 95},
			PCIe:         PCIe{4, 16}, NVLink: NVLinks{Count: 12, Version: 4, Speed: 25000},
			RowBanks: 640,
			MIG:      sevenSlices(9728, 19968, 40192, 80896, [4]int{14, 14, 42, 98}, "10gb", "20gb", "40gb", "80gb"),
		},
		"h100": {
			Clocks:    Clocks{SM: 1980e6, Memory: 2619e6, Video: 1545e6},
			PCIDevice: 0x233010de, PCISubsystem: 0x16c110de, PartNumber: "692-2G520-0200-000",
			Capability: [2]int{9, 0}, Cores: 16896, BusWidth: 5120, BAR1: 128 * gibibyte,
			Power:        PowerLimits{Min: 200, Max: 700, Default: 700},
			Temperatures: TemperatureLimits{Max: 87, Slowdown: 89, Shutdown: 95, Memory: 95},
			PCIe:         PCIe{5, 16}, NVLink: NVLinks{Count: 18, Version: 6, Speed: 26562},
			RowBanks: 2560, GPM: true, Fabric: true,
			MIG: sevenSlices(9984, 20096, 40448, 81152, [4]int{16, 26, 60, 132}, "10gb", "20gb", "40gb", "80gb"),
		},
		"h200": {
			Clocks:    Clocks{SM: 1980e6, Memory: 3201e6, Video: 1545e6},
			PCIDevice: 0x233510de, PCISubsystem: 0x18be10de, PartNumber: "692-2G520-0280-000",
			Capability: [2]int{9, 0}, Cores: 16896, BusWidth: 6144, BAR1: 256 * gibibyte,
			Power:        PowerLimits{Min: 200, Max: 700, Default: 700},
			Temperatures: TemperatureLimits{Max: 87, Slowdown: 89, Shutdown: 95, Memory: 95},
			PCIe:         PCIe{5, 16}, NVLink: NVLinks{Count: 18, Version: 6, Speed: 26562},
			RowBanks: 3072, GPM: true, Fabric: true,
			MIG: sevenSlices(16384, 33024, 71168, 143104, [4]int{16, 26, 60, 132}, "18gb", "35gb", "71gb", "141gb"),
		},
		"b200": {
			Clocks:    Clocks{SM: 1965e6, Memory: 3996e6, Video: 1860e6},
			PCIDevice: 0x290110de, PCISubsystem: 0x199910de, PartNumber: "692-2G525-0220-000",
			Capability: [2]int{10, 0}, Cores: 18944, BusWidth: 8192, BAR1: 256 * gibibyte,
			Power:        PowerLimits{Min: 200, Max: 1000, Default: 1000},
			Temperatures: TemperatureLimits{Max: 87, Slowdown: 89, Shutdown: 92, Memory: 95},
			PCIe:         PCIe{5, 16}, NVLink: NVLinks{Count: 18, Version: 7, Speed: 53125},
			RowBanks: 4096, GPM: true, Fabric: true,
			MIG: sevenSlices(22528, 45312, 91136, 182272, [4]int{18, 30, 70, 148}, "23gb", "45gb", "90gb", "180gb"),
		},
		"l40s": {
			Clocks:    Clocks{SM: 2520e6, Memory: 9001e6, Video: 1965e6},
			PCIDevice: 0x26b910de, PCISubsystem: 0x185110de, PartNumber: "900-2G133-0080-000",
			Capability: [2]int{8, 9}, Cores: 18176, BusWidth: 384, BAR1: 64 * gibibyte,
			Power:        PowerLimits{Min: 100, Max: 350, Default: 350},
			Temperatures: TemperatureLimits{Max: 88, Slowdown: 95, Shutdown: 98},
			PCIe:         PCIe{4, 16},
			RowBanks:     192,
		},
	}
}
