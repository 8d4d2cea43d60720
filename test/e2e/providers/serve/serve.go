//go:build integration && linux

// Package serve is what the test cluster's providers have in common: flags, the socket, the life of the process, and the
// files that a request asks for. It speaks the wire protocol and imports nothing of the product, so that a mistake of the
// product's is not made twice. Its functions are for a program's main.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
)

const usage = `%s is a provider of the test cluster. It serves the v1alpha1 protocol and %s.

A class's parameters say what it gives:
  file.NAME: CONTENT    the file NAME with this content
  from.NAME: FILE       the file NAME with the present content of FILE in the folder --content
  mode.NAME: MODE       the mode of the file NAME, octal; else the one that the driver asks for
  error: CODE           no files: the mount fails with this code of the provider's
The version of an object is a hash of its content. One line of JSON is logged per call, without contents.

`

// A Provider is a program's name and what it does with the files of a request.
type Provider struct {
	Name  string
	Does  string // for the usage
	Mount func(target string, files []*v1alpha1.File) (*v1alpha1.MountResponse, error)
}

// Main runs the provider until SIGTERM or SIGINT and returns its exit code.
func Main(p Provider) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := p.run(ctx, os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, p.Name+": "+err.Error())
		return 1
	}
	return 0
}

func (p Provider) run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	endpoint := flags.String("endpoint", "unix:///provider/"+p.Name+".sock", "the socket to serve on")
	logFile := flags.String("log", "", "file to append the log to (default: standard error)")
	content := flags.String("content", "", "folder of the files of from.NAME, read anew for every call")
	flags.Usage = func() {
		fmt.Fprintf(stderr, usage, p.Name, p.Does)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: see --help", flags.Arg(0))
	}
	out := stderr
	if *logFile != "" {
		f, err := os.OpenFile(*logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("opening the log: %w", err)
		}
		defer f.Close()
		out = f
	}
	l, err := listen(*endpoint)
	if err != nil {
		return err
	}
	s := &server{provider: p, content: *content, log: slog.New(slog.NewJSONHandler(out, nil))}
	s.log.Info("serving", "endpoint", *endpoint)
	return s.serve(ctx, l)
}

// listen replaces a socket that a former process left, and nothing else.
func listen(endpoint string) (net.Listener, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("reading --endpoint %q: give unix:///path", endpoint)
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("looking at the socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is no socket: move it away", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing an old socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", endpoint, err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // the driver is root
		l.Close()
		return nil, fmt.Errorf("setting the socket's mode: %w", err)
	}
	return l, nil
}

type server struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	provider Provider
	content  string
	log      *slog.Logger
}

// serve ends when ctx does, after the calls in flight; the listener removes its socket.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(g, s)
	stop := context.AfterFunc(ctx, g.GracefulStop)
	defer stop()
	if err := g.Serve(l); err != nil {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	s.log.Info("stopped")
	return nil
}

func (s *server) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: s.provider.Name, RuntimeVersion: "0.1.0"}, nil
}

func (s *server) Mount(_ context.Context, req *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var attributes map[string]string
	if err := json.Unmarshal([]byte(req.GetAttributes()), &attributes); err != nil {
		return nil, status.Error(codes.InvalidArgument, "reading the attributes: they must be a JSON object of strings")
	}
	answer, err := s.answer(req, attributes)
	s.log.Info("mount",
		"pod", attributes["csi.storage.k8s.io/pod.namespace"]+"/"+attributes["csi.storage.k8s.io/pod.name"],
		"target", req.GetTargetPath(), "current", len(req.GetCurrentObjectVersion()),
		"objects", len(answer.GetObjectVersion()), "files", len(answer.GetFiles()),
		"code", status.Code(err).String(), "error", answer.GetError().GetCode())
	return answer, err
}

func (s *server) answer(req *v1alpha1.MountRequest, attributes map[string]string) (*v1alpha1.MountResponse, error) {
	if code := attributes["error"]; code != "" {
		return &v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: code}}, nil
	}
	files, err := s.files(attributes, req.GetPermission())
	if err != nil {
		return nil, err
	}
	answer, err := s.provider.Mount(req.GetTargetPath(), files)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	for _, f := range files {
		answer.ObjectVersion = append(answer.ObjectVersion, &v1alpha1.ObjectVersion{Id: f.GetPath(), Version: version(f.GetContents())})
	}
	return answer, nil
}
