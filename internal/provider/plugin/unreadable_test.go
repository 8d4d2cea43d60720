package plugin_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

// Whoever answers with what is no message is named; gRPC's own text names nobody.
func TestAnswerThatIsNoMessage(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(garbling{encoding.GetCodecV2("proto")}))
	v1alpha1.RegisterCSIDriverProviderServer(server, mountOnly{})
	go server.Serve(l)
	t.Cleanup(server.Stop)
	_, err = client(t, socket).Fetch(deadline(t), request())
	if provider.KindOf(err) != provider.Internal || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), "report it to its maintainers") {
		t.Errorf("got %v", err)
	}
}

type mountOnly struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
}

func (mountOnly) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return &v1alpha1.MountResponse{}, nil
}

type garbling struct{ encoding.CodecV2 }

func (garbling) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer("\xff\xff\xff\xff")}, nil
}
