package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/exporter"
	"gpuvet.dev/internal/node"
	"gpuvet.dev/internal/state"
	"gpuvet.dev/internal/trail"
	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// daemon is one `gpuvet run`: what it was given, and the parts that [daemon.open]
// wires.
type daemon struct {
	o       runOptions
	conf    config
	cluster *node.Cluster // nil: there is none to tell
	script  *fake.Driver  // nil: the GPUs are real
	log     *zap.Logger

	pages    exporter.Switch // what the port shows
	tookOver time.Time       // zero: it did not stand by

	boot     string
	detector *detector.Detector
	kernel   *detector.KernelLog
	sampler  *nvml.Sampler
	gpus     *gpus
	exporter *exporter.Exporter
	config   *reloader
	output   *node.Output // nil: there is no cluster to tell
	// allocation is nil where the GPUs are offered to nobody.
	allocation *allocation
	told       string // which node of which cluster
	web        net.Listener
	local      net.Listener
	noTrail    error // why there is no history
	closers    []func() error

	// unread is closed when the kernel log cannot be opened: nobody need wait
	// for what it holds.
	unread  chan struct{}
	failing sync.Once // closes unread
}

// run is the whole life: wait for the state folder, open the rest, work until ctx
// ends, and let go. At each hangup the configuration is read again.
//
// The next daemon of the node takes over as soon as the state folder is unlocked,
// and must meet nothing that this one still does. So what ends comes in this order:
//
//  1. Sources and outputs, in any order, see [daemon.work]. An output that is
//     registered with somebody, such as the kubelet, unregisters before it returns.
//  2. The detector: trail and state are written.
//  3. The state folder is unlocked. Nothing is written from here on.
//  4. What may take seconds and disturbs nobody: workers that hang in the driver, and
//     requests under way.
func (d *daemon) run(ctx context.Context, errs io.Writer, hangups <-chan os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	servers, serving := errgroup.WithContext(ctx)
	err := d.turn(serving, servers, errs, hangups)
	stop()
	d.close()
	if d.gpus != nil {
		err = errors.Join(err, d.gpus.close())
	}
	return errors.Join(err, servers.Wait())
}

// turn is the part of the life that only one daemon of a node has at a time. ctx
// ends too when one of the servers fails.
func (d *daemon) turn(ctx context.Context, servers *errgroup.Group, errs io.Writer, hangups <-chan os.Signal) error {
	dir, err := d.lock(ctx, servers)
	if err != nil || dir == nil {
		return err
	}
	d.closers = append(d.closers, dir.Close)
	if err := d.open(dir); err != nil {
		return err
	}
	d.welcome(errs)
	return d.work(ctx, servers, hangups)
}

// open opens what the daemon needs beside its state folder.
func (d *daemon) open(dir *state.Dir) error {
	var err error
	if d.boot, err = kmsg.BootID(); err != nil {
		return err
	}
	d.openKernelLog()
	if d.gpus, err = openGPUs(d.o, d.script, d.log.Named("nvml")); err != nil {
		return err
	}
	saved, err := d.restore(dir)
	if err != nil {
		return err
	}
	if err := d.sameGPUs(saved.State); err != nil {
		return err
	}
	history, err := d.openTrail(d.conf)
	if err != nil {
		return err
	}
	uptime, err := uptime() // the detector counts on from now
	if err != nil {
		return err
	}
	d.detector = detector.New(detector.Config{
		Policy: detector.DefaultPolicy(), Saved: saved, Boot: d.boot, Uptime: uptime,
		Store: dir, Trail: d.history(history), Log: d.log.Named("detector"),
	})
	d.config = newReloader(d.o.config, d.o.configured, d.conf, d.takePolicy, d.log.Named("config"))
	d.sampler = nvml.NewSampler(d.gpus.valve, nvml.SamplerOptions{Index: indexes(saved.State, d.boot)})
	if err := d.connect(d.cluster, d.conf, history); err != nil {
		return err
	}
	d.export()
	return d.listen()
}

// openKernelLog says what of the kernel log counts.
func (d *daemon) openKernelLog() {
	d.kernel, d.unread = detector.NewKernelLog(), make(chan struct{})
	if d.kernel.AcceptUser = d.o.acceptUserLines; d.o.acceptUserLines {
		d.kernel.Has = d.script.Has
	}
	if d.script == nil {
		d.lookBehindBridges()
	}
}

// listen opens the port, unless it is open since the daemon stood by, and the
// socket. Nothing that can fail comes after it: it is their servers that close them.
func (d *daemon) listen() error {
	var err error
	if d.web == nil {
		if d.web, err = net.Listen("tcp", d.o.listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
	}
	if d.local, err = listenLocal(d.o.socket); err != nil {
		return errors.Join(fmt.Errorf("--socket: %w", err), d.web.Close())
	}
	// The next daemon must neither find somebody on it nor have it removed.
	d.closers = append(d.closers, d.local.Close)
	return nil
}

// lookBehindBridges has a PCIe error that a bridge reports find the GPUs below it.
func (d *daemon) lookBehindBridges() {
	tree, err := detector.NewPCITree(detector.PCIDevices)
	told := func(err error) {
		if err != nil {
			d.log.Warn("PCI devices cannot be listed; errors that a bridge reports find no GPU", zap.Error(err))
		}
	}
	told(err)
	d.kernel.Behind = tree.Behind
	d.kernel.Loaded = func() { told(tree.Refresh()) }
}

// restore reads what was saved. State that cannot be trusted is left where it
// is for people to see, and the daemon starts afresh.
func (d *daemon) restore(dir *state.Dir) (detector.Saved, error) {
	payload, origin, err := dir.Load()
	if errors.Is(err, state.ErrNewer) {
		return detector.Saved{}, inputError{err}
	}
	if err != nil {
		return detector.Saved{}, err
	}
	if origin.Refused != nil {
		d.log.Warn("saved state is damaged", zap.Stringer("using", origin.Source), zap.Strings("kept", origin.Damaged), zap.Error(origin.Refused))
	}
	if origin.Source == state.None {
		return detector.Saved{}, nil
	}
	saved, err := detector.DecodeSaved(payload)
	if err != nil {
		kept := filepath.Join(d.o.stateDir, "state.unread")
		d.log.Error("saved state is not understood; starting afresh", zap.Error(err), zap.String("kept", kept),
			zap.NamedError("keeping", os.WriteFile(kept, payload, 0o600)))
		return detector.Saved{}, nil
	}
	return saved, nil
}

// sameGPUs refuses state of scripted GPUs for real ones, and the other way
// round: a node must not be fenced for a fault that was played.
func (d *daemon) sameGPUs(s *detector.State) error {
	switch {
	case s == nil || s.Seq == 0 || s.Scripted == (d.gpus.scripted != nil):
		return nil
	case s.Scripted:
		return badInput("--state-dir %s: holds what was seen of scripted GPUs: expected another folder, or --fake-nvml", d.o.stateDir)
	default:
		return badInput("--state-dir %s: holds what was seen of real GPUs: expected another folder with --fake-nvml", d.o.stateDir)
	}
}

// history is where the detector keeps what happened.
func (d *daemon) history(opened *trail.Trail) detector.History {
	if opened == nil {
		return lostTrail{d.noTrail}
	}
	return opened
}

// lostTrail stands for a trail that could not be opened: it says so.
type lostTrail struct{ err error }

func (l lostTrail) Append(trail.Record) (bool, error) { return false, l.err }
func (l lostTrail) Sync() error                       { return nil }

// openTrail opens the history. Without one, nil, the daemon detects all the
// same.
func (d *daemon) openTrail(conf config) (*trail.Trail, error) {
	history, err := trail.Open(filepath.Join(d.o.stateDir, "trail"), conf.Trail.options(d.boot))
	if errors.Is(err, trail.ErrNewer) {
		return nil, inputError{err}
	}
	if err != nil {
		d.log.Error("trail cannot be opened; detection goes on without history and without Events", zap.Error(err))
		d.noTrail = err
		return nil, nil
	}
	d.closers = append(d.closers, history.Close)
	if opened := history.Opened(); opened.TornFile != "" || opened.Broken != nil {
		d.log.Warn("trail is incomplete or was changed", zap.String("torn", opened.TornFile), zap.Int64("bytes", opened.TornBytes), zap.Error(opened.Broken))
	}
	return history, nil
}

// listenLocal listens on a socket that only this user may use. One that a
// killed daemon left behind is replaced.
func listenLocal(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another gpuvet answers on %s: stop it, or name another socket", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is a %s: expected a socket, or nothing", path, kindOf(info.Mode()))
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}

// private refuses a folder in which somebody else could put his own socket in
// place of ours.
func private(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	sticky := st.Mode&unix.S_ISVTX != 0
	switch {
	case st.Mode&0o022 != 0 && !sticky:
		return fmt.Errorf("folder %s has mode %04o: expected one that nobody else may write to", dir, st.Mode&0o7777)
	case !sticky && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("folder %s belongs to user %d: expected user %d or root", dir, st.Uid, os.Geteuid())
	default:
		return nil
	}
}

func kindOf(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "folder"
	case mode.IsRegular():
		return "file"
	default:
		return "special file"
	}
}

func uptime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read the clock since boot: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// indexes are those that GPUs had under this boot.
func indexes(s *detector.State, boot string) map[string]int {
	if s == nil || s.Boot != boot {
		return nil
	}
	known := map[string]int{}
	for _, g := range s.GPUs {
		if g.Index != nil {
			known[g.PCI] = *g.Index
		}
	}
	return known
}

func (d *daemon) export() {
	var outputs []exporter.Output
	if d.output != nil {
		outputs = append(outputs, exporter.Output{Name: "node", Progress: func() exporter.Progress {
			seq, at, err := d.output.Progress()
			return exporter.Progress{Seq: seq, At: at, Err: err}
		}})
	}
	var offered func() exporter.Allocation
	if d.allocation != nil {
		offered = d.allocation.told
		outputs = append(outputs, exporter.Output{Name: "dra", Progress: func() exporter.Progress {
			seq, at, err := d.allocation.slices.Progress()
			return exporter.Progress{Seq: seq, At: at, Err: err}
		}})
	}
	d.exporter = exporter.New(exporter.Sources{
		Version: buildVersion(), Policy: d.detector.Policy, Snapshot: d.detector.Snapshot, Sample: d.sampler.Latest,
		KernelLog: d.kernel, Kept: d.detector.Kept, Outputs: outputs, AcceptsUserLines: d.o.acceptUserLines,
		Freshness: nvml.DefaultFreshness, Alive: d.detector.Alive, NVML: d.gpus.valve.Closed, Workers: d.gpus.told(), Scripted: d.gpus.scripted != nil,
		Configuration: d.config.configuration, TookOver: d.tookOver, Allocation: offered,
	})
}

// work starts everything and returns when all has been saved.
func (d *daemon) work(ctx context.Context, servers *errgroup.Group, hangups <-chan os.Signal) error {
	// The detector goes on until the sources have ended, so that what they saw
	// last is saved.
	keeping, kept := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- d.detector.Run(keeping) }()
	start := map[string]string{"version": buildVersion()}
	if d.gpus.scripted != nil {
		start["gpus"] = detector.Scripted
	}
	d.detector.Emit(detector.Event{Source: detector.SourceDaemon, Kind: detector.KindBoot, Fields: start})
	d.detector.SetPolicy(d.config.running.policy)
	d.serve(ctx, servers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		d.log.Info("gpuvet is stopping")
		return nil
	})
	g.Go(func() error { return d.readKernelLog(ctx) })
	g.Go(func() error { return d.watchGPUs(ctx) })
	g.Go(func() error {
		return detector.DriverPauses(ctx, d.detector.Watch(ctx), d.gpus.valve, d.sampler.Refresh, d.log.Named("nvml"))
	})
	g.Go(func() error { return notify(ctx, d.detector, !d.tookOver.IsZero(), d.log) })
	g.Go(func() error { return d.config.run(ctx, hangups) })
	g.Go(func() error { return d.gpus.play(ctx) })
	if d.output != nil {
		g.Go(func() error { return d.output.Run(ctx, d.detector.Watch(ctx)) })
	}
	if d.allocation != nil {
		g.Go(func() error { return d.allocation.run(ctx, d) })
	}
	err := g.Wait()
	kept()
	return errors.Join(err, <-ended)
}

// serve begins to answer, on the port and on the socket.
func (d *daemon) serve(ctx context.Context, servers *errgroup.Group) {
	d.pages.Show(d.exporter.Handler())
	if d.tookOver.IsZero() {
		servers.Go(func() error { return d.serveWeb(ctx) })
	}
	servers.Go(func() error { return d.serveLocal(ctx) })
}

// takePolicy brings a policy into force, and has the GPUs looked at if there may
// be faults that the one before ignored.
func (d *daemon) takePolicy(p *detector.Policy) {
	before := d.detector.Policy()
	d.detector.SetPolicy(p)
	if !p.Unhides(before) {
		return
	}
	for _, g := range d.detector.Snapshot().GPUs {
		d.sampler.Refresh(g.PCI)
	}
	d.sampler.Refresh("")
}

// close closes socket and trail and, last of all, unlocks the state folder.
func (d *daemon) close() {
	for _, end := range slices.Backward(d.closers) {
		if err := end(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("close", zap.Error(err))
		}
	}
	if d.detector != nil {
		d.log.Info("state folder is unlocked")
	}
}
