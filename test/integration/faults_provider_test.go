//go:build integration && linux

package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"keymount/api/provider/v1alpha1"
	"keymount/test/integration/kubelet"
)

// A providerFault is something that a provider's socket does instead of serving.
type providerFault struct {
	name string
	// begin makes the fault, at a path where nothing is.
	begin func(t *testing.T, path string)
	code  codes.Code
	says  []string // of the error of a first mount
}

// What a first mount is told, by fault. Nothing is left each time, so each code is final.
var providerFaults = []providerFault{
	{"gone", func(*testing.T, string) {}, codes.NotFound, []string{`provider not found: provider "gone": there is no gone.sock in `, "DaemonSet"}},
	{"hung", func(t *testing.T, path string) { listen(t, path, hold) }, codes.FailedPrecondition,
		[]string{`nobody answers for provider "hung"`, "does not speak gRPC"}},
	{"full", fullBacklog, codes.FailedPrecondition, []string{`nobody answers for provider "full"`, "it is there, but takes no connection"}},
	{"garbage", func(t *testing.T, path string) { listen(t, path, garbage) }, codes.FailedPrecondition,
		[]string{`nobody answers for provider "garbage"`, "does not speak gRPC"}},
	{"garbled", garbled, codes.Internal, []string{"garbled.sock answered with what is no message"}},
	{"much", much, codes.InvalidArgument, []string{"over the limit of 4194304 bytes", "--max-call-recv-msg-size"}},
	{"file", func(t *testing.T, path string) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}, codes.FailedPrecondition, []string{`nobody answers for provider "file"`, "it is no socket"}},
	{"stale", stale, codes.FailedPrecondition, []string{`nobody answers for provider "stale"`, "it is there, but nobody listens"}},
	{"crash", crash, codes.FailedPrecondition, []string{"crash.sock"}},
}

// Whatever is wrong with a provider: a first mount says what and leaves nothing, kubelet's next try succeeds once it is
// mended, and a volume that pods have keeps its files, of which kubelet hears nothing but OK.
func TestRootProviderFaults(t *testing.T) {
	r := newRig(t, rotation("1ms")...)
	path := func(f *providerFault) string { return filepath.Join(r.driver.Providers, f.name+".sock") }
	fresh, held := map[string]*kubelet.Volume{}, map[string]*kubelet.Volume{}
	for _, f := range providerFaults {
		r.class(f.name, f.name, nil, "a: b")
		_, fresh[f.name] = r.podOf(f.name)
		_, held[f.name] = r.podOf(f.name)
		f.begin(t, path(&f))
	}
	errs := atOnce(fresh, func(v *kubelet.Volume) error { return v.Publish(r.Context()) })
	for _, f := range providerFaults {
		wantRefused(r, &f, fresh[f.name], errs[f.name])
	}

	mended := map[string]*scripted{}
	for _, f := range providerFaults {
		mended[f.name] = r.provide(r.driver.Providers, f.name)
		r.mustPublish(fresh[f.name])
		r.mustPublish(held[f.name])
	}
	for _, f := range providerFaults {
		mended[f.name].server.Stop()
		os.Remove(path(&f))
		f.begin(t, path(&f))
	}
	for name, err := range atOnce(held, func(v *kubelet.Volume) error { return v.Republish(r.Context()) }) {
		if err != nil {
			t.Errorf("%s: a refresh ended with %v", name, err)
		}
		r.wantFiles(held[name], map[string]string{"a": "a v1"})
		if !strings.Contains(r.driver.Log(), `msg="volume keeps its files, it could not be refreshed" volume=`+held[name].ID) {
			t.Errorf("%s: the log does not say that the refresh failed", name)
		}
	}
	for _, f := range providerFaults { // the provider is not needed to get rid of a volume
		r.mustUnpublish(fresh[f.name])
		r.mustUnpublish(held[f.name])
		r.wantNothing(held[f.name])
	}
}

// A provider that takes the call and never answers: kubelet gives up, and what it then asks is answered by what is there then.
func TestRootProviderThatNeverAnswers(t *testing.T) {
	r := newRig(t, rotation("1ms")...)
	p := r.provide(r.driver.Providers, "silent")
	r.class("silent", "silent", nil, "a: b")
	_, v := r.podOf("silent")
	asked := make(chan struct{}, 8)
	silent := func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	giveUp := func(do func(context.Context) error) error {
		p.do(silent)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- do(ctx) }()
		<-asked
		cancel()
		return <-ended
	}
	if err := giveUp(v.Publish); kubelet.OutcomeOf(err) != kubelet.Uncertain || v.State() != kubelet.Unsure {
		t.Errorf("a first mount: %v, kubelet believes %s", err, v.State())
	}
	p.say(content("v1", "a"))
	r.mustPublish(v)
	r.wantFiles(v, map[string]string{"a": "a v1"})
	if n := r.mountsAt(v.Target); n != 1 {
		t.Errorf("%d mounts", n)
	}

	if err := giveUp(v.Republish); kubelet.OutcomeOf(err) != kubelet.Uncertain {
		t.Errorf("a refresh: %v", err)
	}
	r.mustRepublish(v)
	r.wantFiles(v, map[string]string{"a": "a v1"})

	_, gone := r.podOf("silent")
	if err := giveUp(gone.Publish); err == nil {
		t.Error("no error")
	}
	r.mustUnpublish(gone) // the pod was deleted meanwhile
	r.wantNothing(gone)
	r.mustUnpublish(v)
	r.wantNothing(v)
}

// wantRefused checks how a first mount failed.
func wantRefused(r *rig, f *providerFault, v *kubelet.Volume, err error) {
	r.Helper()
	if kubelet.Code(err) != f.code || kubelet.OutcomeOf(err) != kubelet.Final {
		r.Errorf("%s: got %v, want code %v", f.name, err, f.code)
	}
	for _, text := range f.says {
		if !strings.Contains(fmt.Sprint(err), text) {
			r.Errorf("%s: %q does not say %q", f.name, err, text)
		}
	}
	r.wantNothing(v)
}

// atOnce makes calls for all volumes at the same time.
func atOnce(vs map[string]*kubelet.Volume, call func(*kubelet.Volume) error) map[string]error {
	errs := map[string]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, v := range vs {
		all.Go(func() {
			err := call(v)
			mu.Lock()
			defer mu.Unlock()
			errs[name] = err
		})
	}
	all.Wait()
	return errs
}

// listen takes connections at path and does with each what serve does.
func listen(t *testing.T, path string, serve func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.(*net.UnixListener).SetUnlinkOnClose(false) // another may have the path by then
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

func hold(conn net.Conn) {
	defer conn.Close()
	io.Copy(io.Discard, conn)
}

func garbage(conn net.Conn) {
	defer conn.Close()
	bufio.NewReader(conn).Peek(1)
	io.WriteString(conn, strings.Repeat("HTTP/1.1 400 Bad Request\r\n\r\n", 100))
}

// fullBacklog makes a listener that takes nobody and whose queue is full.
func fullBacklog(t *testing.T, path string) {
	t.Helper()
	open := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	fd := open()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		err := unix.Connect(open(), &unix.SockaddrUnix{Name: path})
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the queue does not fill")
}

// stale leaves the socket of a provider that ended.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

// serveMount serves the protocol at path with one answer.
func serveMount(t *testing.T, path string, answer func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error), opt ...grpc.ServerOption) *grpc.Server {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	server := grpc.NewServer(opt...)
	p := &scripted{path: path, server: server}
	p.do(answer)
	v1alpha1.RegisterCSIDriverProviderServer(server, p)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return server
}

// much answers with more than the limit.
func much(t *testing.T, path string) {
	resp := content("v1", "a")
	resp.Files[0].Contents = make([]byte, 5<<20)
	serveMount(t, path, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return resp, nil })
}

// crash ends with each call, and is back for the next.
func crash(t *testing.T, path string) {
	var mu sync.Mutex
	var server *grpc.Server
	answer := func(ctx context.Context, _ *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		go server.Stop()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	server = serveMount(t, path, answer)
}

// garbled speaks gRPC and answers with what is no message of the protocol.
func garbled(t *testing.T, path string) {
	serveMount(t, path, func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return content("v1", "a"), nil
	},
		grpc.ForceServerCodecV2(garbling{encoding.GetCodecV2("proto")}))
}

type garbling struct{ encoding.CodecV2 }

func (garbling) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer([]byte("\xff\xff\xff\xff garbled"))}, nil
}
